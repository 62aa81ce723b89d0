# SPDX-License-Identifier: GPL-2.0-or-later
"""The same transcript on a plain tree, through a mount, and through a mount on the tree's own path: the same answers, the
same files."""

import os

import pytest

from transcript import FOLDER, Player, World, same, transcripts

ALL = [pytest.param(t, s, id=f"{os.path.relpath(t.path, FOLDER)}-{s}") for t, s in transcripts()]


@pytest.mark.parametrize("transcript, server", ALL)
def test_transcript(transcript, server):
    plain, *mounted = (
        Player(transcript, server, World(name, transcript.head["tree"])).play() for name in ("plain", "mounted", "same")
    )
    assert plain.said
    for player in mounted:
        same("plain", plain.said, player.world.name, player.said)
        same("files, plain", plain.files, player.world.name, player.files)

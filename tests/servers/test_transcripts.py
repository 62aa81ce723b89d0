# SPDX-License-Identifier: GPL-2.0-or-later
"""Each transcript on a plain tree, through a mount, and through a mount on the tree's own path: the same answers, the
same files."""

import os

import pytest

from compared import same
from place import WAYS
from transcript import FOLDER, Player, transcripts

ALL = [pytest.param(t, s, id=f"{os.path.relpath(t.path, FOLDER)}-{s}") for t, s in transcripts()]


@pytest.mark.parametrize("transcript, server", ALL)
def test_transcript(transcript, server):
    plain, *mounted = (Player(transcript, server, way).play() for way in WAYS)
    assert plain.said
    for player in mounted:
        same("plain", plain.said, player.way, player.said)
        same("files, plain", plain.files, player.way, player.files)

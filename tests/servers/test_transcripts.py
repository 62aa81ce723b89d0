# SPDX-License-Identifier: GPL-2.0-or-later
"""Each transcript on a plain tree, through a mount, and through a mount on the tree's own path: the same answers, the
same files."""

import os

import pytest

from compared import same
from place import WAYS
from transcript import FOLDER, Player, transcripts

# What meets most of what NFS has of its own: changes by others, renames, links, hidden removals, locks, owners.
ON_NFS = {
    *("imap/append", "imap/copy", "imap/expunge", "imap/noop", "imap/select", "imap/shared", "imap/store"),
    *("imap/two_sessions", "pop3/delete", "pop3/delivery", "pop3/read"),
}


def param(transcript, server):
    name = os.path.relpath(transcript.path, FOLDER)
    return pytest.param(transcript, server, id=f"{name}-{server}", marks=[pytest.mark.nfs] if name in ON_NFS else [])


ALL = [param(t, s) for t, s in transcripts()]


@pytest.mark.parametrize("transcript, server", ALL)
def test_transcript(transcript, server):
    plain, *mounted = (Player(transcript, server, way).play() for way in WAYS)
    assert plain.said
    for player in mounted:
        same("plain", plain.said, player.way, player.said)
        same("files, plain", plain.files, player.way, player.files)

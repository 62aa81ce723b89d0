# SPDX-License-Identifier: GPL-2.0-or-later
"""What an overlay on NFS must not cost or leave."""

import os

import calls
from lab import OWNER, Host, Tree, as_owner

ROUNDS, THREADS, MANY = 20, 4, 100000


def read_and_delete(maildir, who):
    for i in range(ROUNDS):
        folder = os.path.join(maildir, f".F{who}-{i}")
        for half in ("", "new", "cur", "tmp"):
            os.mkdir(os.path.join(folder, half))
        for k in range(3):
            name = os.path.join(folder, "cur", f"17{k}.M{k}P1.in:2,S")
            with open(name, "xb") as f:
                f.write(b"Subject: x\n\nbody\n")
            for _ in range(2):  # the second time without the lower file
                with open(name, "rb") as f:
                    assert f.read().endswith(b"body\n")
            os.listdir(os.path.join(folder, "cur"))
            os.unlink(name)
        for half in ("new", "cur", "tmp", ""):
            os.rmdir(os.path.join(folder, half))


def test_read_close_expunge_and_delete_the_folder_at_once(processes):
    """RELEASE comes after close() returned: a file that is still open below would become a .nfs name, and the folder
    could not be removed."""
    with Tree() as tree:
        tree.maildir("u")
        with Host("mf1", tree) as host, as_owner():
            sessions = [processes() for _ in range(THREADS)]
            for i, session in enumerate(sessions):
                session.begin(read_and_delete, host.up("u/Maildir"), i)
            for session in sessions:
                session.end()
        left = [n for _, dirs, files in os.walk(tree.path) for n in dirs + files if n.startswith((".nfs", ".F"))]
        assert not left


def test_the_first_listing_makes_no_lookup():
    with Tree() as tree:
        tree.maildir("u", cur=1)
        for i in range(MANY - 1):
            with open(tree.on("u/Maildir/cur", f"16{i}.M{i}P1.in:2,S"), "xb") as f:
                os.fchown(f.fileno(), OWNER, OWNER)
        with Host("mf1", tree) as host, as_owner():
            os.stat(host.up("u/Maildir/cur"))
            before = calls.read(host.nfs)
            assert len(host.listed("u", "cur")) == MANY
            made = {k: op.count for k, op in calls.diff(before, calls.read(host.nfs)).items()}
        print(f"the first listing of {MANY}: {made}")
        assert not made.get("LOOKUP")

# SPDX-License-Identifier: GPL-2.0-or-later
"""git keeps device-free stat data of each file (times, inode, size, owner) and rereads what differs; it locks by links
and renames, and maps its packs."""

import os
import shutil

import pytest

GIT = ("git", "-c", "user.name=u", "-c", "user.email=u@example.org", "-c", "init.defaultBranch=main")
WHEN = {"GIT_AUTHOR_DATE": "@1600000000 +0000", "GIT_COMMITTER_DATE": "@1600000000 +0000"}


@pytest.fixture
def origin(twin):
    top = os.path.join(twin.m.dir, "origin")
    os.mkdir(top)
    twin.fill()
    for name in ("u", "p"):
        shutil.copytree(os.path.join(twin.plain, name), os.path.join(top, name), symlinks=True, ignore=fifos)
    for argv in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        assert twin.run_in(top, *GIT, *argv, env=WHEN) == (0, b"", b"")
    return top


def fifos(_, names):
    return [n for n in names if n == "fifo"]


@pytest.mark.parametrize("where", [".", "u/cur"])
def test_clone_status_commit_gc(twin, origin, where):
    def git(*argv, **kw):
        return twin.run(*GIT, *argv, cwd=os.path.join(where, "clone"), env=WHEN, **kw)

    twin.run(*GIT, "clone", "-q", origin, "clone", cwd=where)
    assert git("status", "--porcelain") == b""
    # What is in git's index is what stat says: nothing must be read again.
    assert git("diff-files", "--name-only") == b""
    twin.m.fs_restart()
    assert git("diff-files", "--name-only") == b""
    for top in (twin.plain, twin.mnt):
        clone = os.path.join(top, where, "clone")
        with open(os.path.join(clone, "p", "file03"), "ab") as f:
            f.write(b"more")
        os.rename(os.path.join(clone, "p", "file06"), os.path.join(clone, "p", "moved"))
        name = sorted(os.listdir(os.path.join(clone, "u", "new")))[0]
        os.rename(os.path.join(clone, "u", "new", name), os.path.join(clone, "u", "cur", name + ":2,S"))
    assert git("status", "--porcelain").count(b"\n") == 5
    git("add", "-A")
    git("commit", "-qm", "second")
    git("checkout", "-q", "-b", "other", "HEAD~1")
    git("mv", "p/file08", "p/renamed")
    git("commit", "-qm", "third")
    git("merge", "-q", "-m", "both", "main")
    git("gc", "-q", "--prune=now")
    git("repack", "-adq", "-f")
    git("fsck", "--strict", "--no-progress")
    assert git("status", "--porcelain") == b""
    git("log", "--stat", "--format=%H %T %s")
    git("stash", "list")
    git("worktree", "add", "-q", "../tree", "HEAD~1")
    git("clean", "-fdxq")
    git("archive", "--format=tar", "HEAD")
    heads = twin.each(lambda top: twin.run_in(os.path.join(top, where, "clone"), *GIT, "rev-parse", "HEAD")[1])
    assert heads[0] == heads[1]


@pytest.mark.full
def test_untracked_cache(twin, origin):
    """git's own test of what directory times are worth."""
    twin.run(*GIT, "clone", "-q", origin, "clone")
    for top in (twin.plain, twin.mnt):
        code, _, said = twin.run_in(top, *GIT, "update-index", "--test-untracked-cache", cwd="clone")
        assert code == 0 and said.endswith(b" OK\n"), said

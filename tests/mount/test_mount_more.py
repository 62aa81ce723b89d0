# SPDX-License-Identifier: GPL-2.0-or-later
"""Beside test_mount.py: two instances, odd spellings of paths, and trees that change under a running mount (law 7)."""

import os
import subprocess
from errno import EIO

import pytest

from host import FS, eventually, ls, mounts_below, refused, touch

USE, REACH = 2, 3


def own_tree(m, name):
    """A second tree with a mailbox of two messages."""
    root = os.path.join(m.dir, name)
    for sub in ("new", "cur", "tmp"):
        os.makedirs(os.path.join(root, "u", sub))
    touch(os.path.join(root, "u/cur/1"))
    touch(os.path.join(root, "u/cur/2"))
    return root


def test_second_instance_on_the_same_socket_harms_nothing(maildex):
    """mount = root, another root, the same socket: it is refused, and the first one's private bind stays."""
    maildex.conf["mount"] = maildex.root
    maildex.fill("u", "cur", 10)
    maildex.fs_start()
    before = mounts_below(maildex.dir)
    other = own_tree(maildex, "other")
    code, said = maildex.fs_refused(root=other, mount=other)
    assert code == REACH and maildex.socket + ".fs" in said
    assert mounts_below(maildex.dir) == before
    assert len(ls(maildex.up("u/cur"))) == 10
    touch(maildex.up("u/cur/own"))
    assert maildex.fs_status()["maildexfs.state"] == "ok"
    assert len(ls(maildex.up("u/cur"))) == 11


def test_second_instance_beside_on_the_same_socket(mounted):
    code, said = mounted.fs_refused(mount=own_tree(mounted, "empty") and make(mounted, "mnt2"))
    assert code == REACH and mounted.socket + ".fs" in said
    mounted.same("u/cur")
    assert not os.path.ismount(os.path.join(mounted.dir, "mnt2"))


def make(m, name):
    path = os.path.join(m.dir, name)
    os.mkdir(path, 0o755)
    return path


@pytest.mark.parametrize("spelling", ["{mnt}/../mail/in", "{link}/in", "{mnt}/../mnt/../mail/in"])
def test_mount_point_below_root_however_it_is_spelled(maildex, spelling):
    os.mkdir(maildex.low("in"), 0o755)
    os.symlink(maildex.root, os.path.join(maildex.dir, "link"))
    path = spelling.format(mnt=maildex.mnt, link=os.path.join(maildex.dir, "link"))
    code, said = maildex.fs_refused(mount=path)
    assert code == USE and path in said
    assert not mounts_below(maildex.dir)


@pytest.mark.parametrize("spelling", ["{root}/", "{root}/.", "{dir}/mnt/../mail", "{dir}//mail"])
def test_root_itself_however_it_is_spelled(maildex, spelling):
    """Another spelling of root is mount = root, or it is refused; never a mount that hides the tree that it serves."""
    maildex.fill("u", "cur", 5)
    path = spelling.format(root=maildex.root, dir=maildex.dir)
    maildex.conf["mount"] = maildex.root
    with subprocess.Popen(maildex.fs_command("-f", mount=path), stderr=subprocess.PIPE) as p:
        eventually("an answer", lambda: p.poll() is not None or maildex.root in mounts_below(maildex.dir))
        if p.poll() is None:
            assert len(ls(maildex.root + "/u/cur")) == 5
            subprocess.run(["umount", maildex.root], check=True)
            assert p.wait(60) == 0
        else:
            assert p.returncode == USE and path.rstrip("/") in p.stderr.read().decode()
    assert not mounts_below(maildex.dir)
    assert len(ls(maildex.root + "/u/cur")) == 5


def test_crashed_mount_beside_is_named(mounted):
    mounted.fs_kill()
    code, said = mounted.fs_refused()
    assert code in (USE, REACH) and f"umount -l {mounted.mnt}" in said
    subprocess.run(["umount", "-l", mounted.mnt], check=True)
    mounted.fs_start()
    mounted.same("u/cur")


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP"])
def test_signals_unmount(mounted, signal):
    subprocess.run(["kill", "-" + signal, str(mounted.fs.pid)], check=True)
    assert mounted.fs.wait(60) == 0
    mounted.fs = None
    assert not mounts_below(mounted.dir) and not os.path.exists(mounted.socket + ".fs")


def test_too_many_arguments(maildex):
    code, said = maildex.fs_refused(maildex.mnt, maildex.mnt)
    assert code == USE and maildex.mnt in said


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_says_what_it_is(maildex, option):
    done = subprocess.run([FS, option], capture_output=True, check=True, timeout=60)
    assert b"maildex" in done.stdout and not done.stderr
    assert not mounts_below(maildex.dir)


# -- trees that change


@pytest.fixture(name="bound")
def root_that_is_a_mount(maildex):
    """root is a tmpfs of its own, as an NFS mount would be; what lies beneath is empty."""
    subprocess.run(["mount", "-t", "tmpfs", "maildex-test", maildex.root], check=True)
    maildex.maildir("u", cur=10)
    maildex.fs_start()
    assert len(maildex.same("u/cur")) == 10
    return maildex


def listed(m, folder):
    """The number of names, or the errno; 10 until a change is noticed, never anything else."""
    try:
        return len(os.listdir(m.up(folder)))
    except OSError as e:
        return -e.errno


@pytest.mark.parametrize("then", ["nothing", "another tmpfs", "a tree that looks alike"])
def test_replaced_tree(bound, then):
    """EIO, never an empty Maildir, whatever stands there now; and not the other tree's mail."""
    subprocess.run(["umount", "-l", bound.root], check=True)
    if then != "nothing":
        subprocess.run(["mount", "-t", "tmpfs", "maildex-test", bound.root], check=True)
    if then == "a tree that looks alike":
        bound.maildir("u", cur=4)
    seen = []
    eventually("an error", lambda: seen.append(listed(bound, "u/cur")) or seen[-1] == -EIO)
    assert set(seen) <= {10, -EIO}
    for folder in ("", "u", "u/new", "u/tmp"):
        refused(EIO, os.listdir, bound.up(folder))
    assert bound.fs_status()["maildexfs.state"] != "ok"
    assert bound.root in bound.fs_logged()


def test_hidden_tree_comes_back(bound):
    """Something is mounted over root, and goes again."""
    subprocess.run(["mount", "-t", "tmpfs", "maildex-test", bound.root], check=True)
    eventually("an error", lambda: listed(bound, "u/cur") == -EIO)
    subprocess.run(["umount", bound.root], check=True)
    eventually("the tree", lambda: listed(bound, "u/cur") == 10)
    touch(bound.low("u/cur/silent"))
    bound.same("u/cur")
    eventually("the state", lambda: bound.fs_status()["maildexfs.state"] == "ok")


def test_mount_below_root(maildex):
    """A platform with two storage servers: one is mounted inside the other; inode numbers may be the same."""
    os.mkdir(maildex.low("second"))
    subprocess.run(["mount", "-t", "tmpfs", "maildex-test", maildex.low("second")], check=True)
    maildex.maildir("second/v", cur=7, new=1)
    maildex.maildir("u", cur=3)
    maildex.fs_start()
    for _ in range(2):
        assert len(maildex.same("second/v/cur")) == 7 and len(maildex.same("u/cur")) == 3
        touch(maildex.up("second/v/tmp/x"))
        os.rename(maildex.up("second/v/tmp/x"), maildex.up("second/v/tmp/y"))
        os.unlink(maildex.up("second/v/tmp/y"))
    touch(maildex.low("second/v/cur/silent"))
    assert len(maildex.same("second/v/cur")) == 8
    refused(18, os.link, maildex.up("second/v/cur/silent"), maildex.up("u/cur/x"))  # EXDEV
    refused(18, os.rename, maildex.up("second/v/cur/silent"), maildex.up("u/cur/x"))
    maildex.same("second/v/cur")
    maildex.same("u/cur")

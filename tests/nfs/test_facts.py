# SPDX-License-Identifier: GPL-2.0-or-later
"""What the freshness rules take for granted of the kernel's NFS client. Each prints what the kernel did."""

import os

import pytest

import calls
from lab import VERSION, Host, Tree, as_owner, force, mounted

CHANGES = 300


@pytest.fixture(name="tree")
def _tree():
    with Tree() as tree:
        tree.maildir("u", cur=500)
        yield tree


@pytest.fixture(name="plain")
def _plain():
    with mounted("mf1") as point:
        yield point


def asked(point, what):
    """The calls that it makes."""
    before = calls.read(point)
    what()
    return {kind: op.count for kind, op in calls.diff(before, calls.read(point)).items() if kind != "SEQUENCE"}


def say(text):
    print(f"NFS {VERSION}: {text}")


@as_owner()
def test_a_forced_statx_is_one_getattr_each_time(tree, plain):
    fd = os.open(os.path.join(plain, tree.name, "u/Maildir/cur"), os.O_RDONLY)
    try:
        os.fstat(fd)
        cached = asked(plain, lambda: [os.fstat(fd) for _ in range(5)])
        forced = asked(plain, lambda: [force(fd) for _ in range(5)])
    finally:
        os.close(fd)
    say(f"5 fstat of a directory: {cached or 'no call'}; 5 forced statx: {forced}")
    assert forced == {"GETATTR": 5}
    assert not cached


@as_owner()
def test_dontneed_makes_the_next_listing_ask_the_server(tree, plain):
    path = os.path.join(plain, tree.name, "u/Maildir/cur")
    os.listdir(path)
    again = asked(plain, lambda: os.listdir(path))
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    dropped = asked(plain, lambda: os.listdir(fd))
    os.close(fd)
    say(f"an unchanged listing, again: {again or 'no call'}; after POSIX_FADV_DONTNEED: {dropped}")
    assert not any(kind.startswith("READDIR") for kind in again)
    assert any(kind.startswith("READDIR") for kind in dropped)


@as_owner()
def test_how_often_stamps_move(tree, plain):
    path = os.path.join(plain, tree.name, "u/Maildir/new")
    fd = os.open(path, os.O_RDONLY)
    stamps = set()
    for i in range(CHANGES):
        with open(tree.on("u/Maildir/new", str(i)), "xb"):
            pass
        stamps.add(os.stat(tree.on("u/Maildir/new")).st_ctime_ns)
    force(fd)
    seen = os.fstat(fd).st_ctime_ns
    os.close(fd)
    say(f"{CHANGES} changes on the server: {len(stamps)} stamps; nanoseconds reach the client: {seen % 1000000 != 0}")
    assert seen == os.stat(tree.on("u/Maildir/new")).st_ctime_ns
    assert len(stamps) >= 2


@as_owner()
def test_what_a_stamp_after_an_own_rename_costs(tree, plain):
    path = os.path.join(plain, tree.name, "u/Maildir/cur")
    name = tree.real("u", "cur")[0]
    fd = os.open(path, os.O_RDONLY)
    force(fd)
    rename = asked(plain, lambda: os.rename(os.path.join(path, name), os.path.join(path, name + "F")))
    cached = asked(plain, lambda: os.fstat(fd))
    stat = os.fstat(fd)
    forced = asked(plain, lambda: force(fd))
    exact = stat.st_ctime_ns == os.stat(tree.on("u/Maildir/cur")).st_ctime_ns
    os.close(fd)
    say(f"rename: {rename}; fstat of its directory: {cached or 'no call'} (exact: {exact}); forced: {forced}")
    assert exact
    assert forced == {"GETATTR": 1}
    assert cached == ({} if VERSION == "3" else {"GETATTR": 1})


def test_a_directory_handle_of_the_mount_is_asked_by_inode(tree):
    """FUSE's GETATTR of a directory carries no handle: an old handle shows the newest state."""
    with Host("mf1", tree) as host, as_owner():
        host.listed("u", "cur")
        fd = os.open(host.up("u/Maildir/cur"), os.O_RDONLY)
        before = os.fstat(fd)
        name = tree.real("u", "cur")[0]
        os.rename(host.up("u/Maildir/cur", name), host.up("u/Maildir/cur", name + "F"))
        after = os.fstat(fd)
        names = set(os.listdir(fd))
        os.close(fd)
        say(f"a handle from before a rename: mtime moved: {after.st_mtime_ns != before.st_mtime_ns}; lists the new name: "
            f"{name + 'F' in names}")  # fmt: skip
        assert after.st_mtime_ns != before.st_mtime_ns
        assert name + "F" in names and name not in names

# SPDX-License-Identifier: GPL-2.0-or-later
"""Laws 1, 2 and 5: listings through a real mount are whole, name each message once, and agree with stat."""

import os
import random
import shutil
import threading
from errno import ENOENT

import pytest

from host import (
    DT_DIR,
    DT_FIFO,
    DT_LNK,
    DT_REG,
    base,
    eventually,
    getdents,
    getdents_all,
    ls,
    opened,
    refused,
    touch,
)

ODD = [
    b"x" * 255,
    b"1600000000.M1P1.host:2,S\nsecond line",
    b"\xff\xfe\x80.not.utf8",
    b"1600000001.M1P1.host:2,S:3:T",
    b":2,S",
    b"a:b:c",
    b"..a",
    b"...",
    b".hidden",
    b" ",
    b"dovecot-uidlist",
    b"-rf",
    b"\x01",
]


@pytest.mark.parametrize("n", [0, 1, 500, 3000])
def test_complete(mounted, n):
    mounted.fill("u", "cur", n)
    assert len(mounted.same("u/cur")) == n
    assert len(mounted.same("u/cur")) == n
    assert not mounted.same("u/new")


@pytest.mark.parametrize("by", ["low", "up"])
@pytest.mark.parametrize("half", ["new", "cur"])
def test_odd_names(mounted, by, half):
    folder = os.fsencode(getattr(mounted, by)("u", half))
    for name in ODD:
        touch(os.path.join(folder, name))
    assert mounted.same("u", half) == set(ODD)
    for name in ODD:
        assert os.stat(os.path.join(os.fsencode(mounted.up("u", half)), name)).st_size == 0


def test_what_is_no_message(mounted):
    """Directories, links and the like in cur/ are listed as they are; .nfs names of the NFS client are not."""
    cur = mounted.low("u/cur")
    os.mkdir(os.path.join(cur, "directory"))
    touch(os.path.join(cur, "directory", "inside"))
    os.symlink("nowhere", os.path.join(cur, "link"))
    os.mkfifo(os.path.join(cur, "fifo"))
    touch(os.path.join(cur, "message"))
    touch(os.path.join(cur, ".nfs000000000123456700000001"))
    with opened(mounted.up("u/cur")) as fd:
        types = {name: kind for _, _, kind, name in getdents_all(fd)}
    assert types == {
        b".": DT_DIR,
        b"..": DT_DIR,
        b"directory": DT_DIR,
        b"link": DT_LNK,
        b"fifo": DT_FIFO,
        b"message": DT_REG,
    }
    assert ls(mounted.up("u/cur/directory")) == {b"inside"}


def test_nfs_names_hidden_elsewhere(mounted):
    touch(mounted.low("u/tmp/.nfs000000000123456700000001"))
    touch(mounted.low("u/tmp/1"))
    assert ls(mounted.up("u/tmp")) == {b"1"}


@pytest.mark.parametrize("folder", ["u/cur", "u/new", "u/tmp", "u", "."])
def test_types_and_inodes(mounted, folder):
    """Law 5: types without a stat, inode numbers of readdir and stat agree; . and .. too."""
    mounted.maildir("u", new=3, cur=5)
    for _ in range(2):  # from the lower tree, and from memory
        with opened(mounted.up(folder)) as fd:
            entries = getdents_all(fd)
        names = [name for _, _, _, name in entries]
        assert names.count(b".") == 1 and names.count(b"..") == 1
        for ino, _, kind, name in entries:
            if folder == "." and name == b"..":
                continue  # outside of the mount
            st = os.lstat(os.path.join(os.fsencode(mounted.up(folder)), name))
            assert ino == st.st_ino, name
            assert kind == st.st_mode >> 12, name
    for entry in os.scandir(mounted.up("u/cur")):
        assert entry.is_file(follow_symlinks=False) and entry.inode() == os.stat(entry.path).st_ino


@pytest.mark.parametrize("folder", ["u/cur", "u/tmp"])
def test_cookies_on_another_handle(mounted, folder):
    """seekdir with a cookie of one handle on another one that never read."""
    mounted.maildir("u")
    for i in range(300):
        touch(mounted.low(folder, f"16000{i:05}.M1P1.host"))
    with opened(mounted.up(folder)) as fd:
        entries = getdents_all(fd)
    for i in (0, 1, 2, 150, 299, 301):
        with opened(mounted.up(folder)) as fd:
            os.lseek(fd, entries[i][1], os.SEEK_SET)
            assert getdents_all(fd, 600) == entries[i + 1 :]


def test_cookies_across_listings(mounted):
    """A cookie stays good on later listings: what stands behind it is what stood there and still exists."""
    names = mounted.fill("u", "cur", 200)
    with opened(mounted.up("u/cur")) as fd:
        entries = getdents_all(fd)
    behind = entries[101:]
    gone = behind[7][3]
    os.unlink(os.path.join(os.fsencode(mounted.up("u/cur")), gone))
    os.unlink(os.path.join(os.fsencode(mounted.up("u/cur")), entries[100][3]))  # the very entry of the cookie
    touch(mounted.low("u/cur/new-one"))
    with opened(mounted.up("u/cur")) as fd:
        os.lseek(fd, entries[100][1], os.SEEK_SET)
        again = [name for _, _, _, name in getdents_all(fd)]
    assert again == [e[3] for e in behind if e[3] != gone] + [b"new-one"]
    assert len(names) == 200


def test_seek_back_on_the_same_handle(mounted):
    mounted.fill("u", "cur", 100)
    with opened(mounted.up("u/cur")) as fd:
        entries = getdents_all(fd, 600)
        os.lseek(fd, entries[10][1], os.SEEK_SET)
        assert getdents_all(fd) == entries[11:]
        assert getdents_all(fd) == []


def test_rewinddir_lists_anew(mounted):
    mounted.fill("u", "cur", 20)
    with opened(mounted.up("u/cur")) as fd:
        assert len(getdents_all(fd)) == 22
        touch(mounted.low("u/cur/silent"))
        os.lseek(fd, 0, os.SEEK_SET)
        assert b"silent" in [e[3] for e in getdents_all(fd)]
        os.unlink(mounted.up("u/cur/silent"))
        os.lseek(fd, 0, os.SEEK_SET)
        assert len(getdents_all(fd)) == 22


def test_handle_sees_one_listing(mounted):
    """From its first READDIR to its last, whatever happens; a new handle sees what is there."""
    names = mounted.fill("u", "cur", 500)
    with opened(mounted.up("u/cur")) as fd:
        first = getdents(fd, 600)
        for name in names[::2]:
            os.unlink(mounted.up("u/cur", name))
        os.rename(mounted.up("u/cur", names[1]), mounted.up("u/cur", names[1] + "T"))
        touch(mounted.low("u/cur/silent"))
        touch(mounted.up("u/cur/own"))
        ls(mounted.up("u/cur"))
        seen = {e[3] for e in first + getdents_all(fd, 600)} - {b".", b".."}
    assert seen == {os.fsencode(n) for n in names}
    mounted.same("u/cur")


def test_listing_is_fixed_at_first_readdir(mounted):
    """C14: not at opendir; an own change between the two is shown."""
    mounted.fill("u", "cur", 5)
    with opened(mounted.up("u/cur")) as fd:
        touch(mounted.up("u/cur/own"))
        assert b"own" in [e[3] for e in getdents_all(fd)]


@pytest.mark.parametrize("window_min", [100, 100000])
@pytest.mark.parametrize("fresh_handles", [False, True])
def test_listing_while_messages_change(maildex, window_min, fresh_handles):
    """Untouched messages are each listed exactly once, whether one handle reads or each piece is read by a new one."""
    maildex.fs_start(window_min=window_min)
    rng = random.Random(window_min)
    names = maildex.fill("u", "cur", 1500)
    touched, untouched = names[::3], {os.fsencode(n) for i, n in enumerate(names) if i % 3}
    maildex.proven("u/cur")

    def change():
        for _ in range(20):
            name = touched.pop(rng.randrange(len(touched)))
            if rng.random() < 0.3:
                os.unlink(maildex.up("u/cur", name))
            else:
                other = name[: name.index(":")] + ":2," + "".join(sorted(rng.sample("DFPRST", 3)))
                os.rename(maildex.up("u/cur", name), maildex.up("u/cur", other))
        touch(maildex.up("u/cur", f"17{rng.randrange(10**8):08}.M1P1.host"))

    seen, cookie = [], 0
    fd = os.open(maildex.up("u/cur"), os.O_RDONLY)
    while True:
        piece = getdents(fd, 8192)
        if not piece:
            break
        seen += [e[3] for e in piece]
        cookie = piece[-1][1]
        if len(touched) > 20:
            change()
        if fresh_handles:
            os.close(fd)
            fd = os.open(maildex.up("u/cur"), os.O_RDONLY)
            os.lseek(fd, cookie, os.SEEK_SET)
    os.close(fd)
    counts = [n for n in seen if n in untouched]
    assert len(counts) == len(untouched) and set(counts) == untouched
    if not fresh_handles:  # law 2: one listing never has a message twice
        assert len({base(n) for n in seen}) == len(seen)
    maildex.same("u/cur")


def test_many_sessions_want_it_at_once(mounted):
    """One lists, the others wait for it."""
    mounted.fill("u", "cur", 2000)
    start, got = threading.Barrier(12), []

    def session():
        start.wait()
        got.append(len(ls(mounted.up("u/cur"))))

    with mounted.counting("lower.listings", "opendirs") as grown:
        threads = [threading.Thread(target=session) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert got == [2000] * 12
    assert grown["opendirs"] == 12 and grown["lower.listings"] <= 2  # the second where the stamp settled meanwhile


def test_removed_below_while_it_is_read(mounted):
    mounted.maildir("u/.gone", cur=300)
    with opened(mounted.up("u/.gone/cur")) as fd:
        entries = getdents(fd, 600)
        shutil.rmtree(mounted.low("u/.gone"))
        entries += getdents_all(fd)
        assert len(entries) == 302
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            assert len(getdents_all(fd)) <= 2
        except OSError:
            pass  # as other filesystems answer
    refused(ENOENT, os.listdir, mounted.up("u/.gone/cur"))


def test_removed_above_while_it_is_read(mounted):
    """The kernel itself answers then, as on any filesystem."""
    mounted.maildir("u/.gone", cur=300)
    with opened(mounted.up("u/.gone/cur")) as fd:
        getdents(fd, 600)
        shutil.rmtree(mounted.up("u/.gone"))
        refused(ENOENT, getdents, fd)
    refused(ENOENT, os.listdir, mounted.up("u/.gone/cur"))
    assert not os.path.exists(mounted.low("u/.gone"))


def test_other_directories_come_from_below(mounted):
    """No index is asked: cur without siblings, tmp, the Maildir, a directory inside cur/ that is called new."""
    os.makedirs(mounted.low("plain/cur"))
    os.makedirs(mounted.low("u/cur/new"))
    for i in range(700):
        touch(mounted.low("plain/cur", f"16000{i:05}.M1P1.host"))
        touch(mounted.low("u/tmp", f"16000{i:05}.M1P1.host"))
    touch(mounted.low("u/cur/new/x"))
    with mounted.counting("opendirs", "lower.listings") as grown:
        for folder in ("plain/cur", "u/tmp", "u", "plain", "", "u/cur/new"):
            mounted.same(folder)
        touch(mounted.low("plain/cur/silent"))
        mounted.same("plain/cur")
    assert grown == {"opendirs": 0, "lower.listings": 0}


def test_root_is_a_maildir(maildex):
    maildex.maildir("", new=2, cur=30)
    maildex.fs_start()
    with maildex.counting("opendirs") as grown:
        assert len(maildex.same("cur")) == 30 and len(maildex.same("new")) == 2
        os.rename(maildex.up("new", os.listdir(maildex.up("new"))[0]), maildex.up("cur/moved"))
        maildex.same("new")
        maildex.same("cur")
    assert grown["opendirs"] == 5
    assert "u" in os.listdir(maildex.up())


def test_becomes_a_half(mounted):
    """A directory is a half from the moment that its siblings are there."""
    os.makedirs(mounted.low("late/cur"))
    touch(mounted.low("late/cur/1"))
    with mounted.counting("opendirs") as grown:
        mounted.same("late/cur")
    assert grown["opendirs"] == 0
    os.mkdir(mounted.low("late/new"))
    os.mkdir(mounted.up("late/tmp"))
    with mounted.counting("opendirs") as grown:
        mounted.same("late/cur")
        mounted.same("late/new")
    assert grown["opendirs"] == 2


def test_small_cache_evicts_and_stays_right(maildex):
    maildex.fs_start(cache_bytes="256K")
    for i in range(12):
        maildex.maildir(f"m{i}", cur=400)
    for _ in range(3):
        for i in range(12):
            maildex.same(f"m{i}/cur")
            os.unlink(maildex.up(f"m{i}/cur", next(iter(os.listdir(maildex.up(f"m{i}/cur"))))))
            maildex.same(f"m{i}/cur")
    status = maildex.fs_status()
    assert int(status["maildexfs.live.evicted"]) > 0
    eventually("the cache to be within its limit", lambda: maildex.count("live.bytes") <= 256 * 1024)

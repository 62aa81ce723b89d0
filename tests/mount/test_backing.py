# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages that the kernel reads straight from the lower file (fs/backing.h): which ones are, and that nobody can tell.
What holds for them holds as well where maildexfs reads them itself, so most tests run both ways."""

import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import subprocess
import threading

import pytest

from daemon import standing_still
from host import as_user, eventually, opened, refused, touch

CONTEXT = multiprocessing.get_context("fork")
A, B, TEAM = 2001, 2002, 3001
SIZE = 300000
DATA = random.Random(1).randbytes(SIZE)
PAGE = mmap.PAGESIZE


def start(maildex, **conf):
    """Skips where libfuse or the kernel has no such thing."""
    maildex.fs_start(**conf)
    state = maildex.fs_status()["maildexfs.passthrough"]
    if state != "on":
        pytest.skip(f"passthrough is {state}")
    return maildex


def message(maildex, path="u/cur/1600000000.M1P1.host:2,S", data=DATA):
    maildex.msg = path
    touch(maildex.low(path), data)
    return maildex


@pytest.fixture(name="s")
def read_straight(maildex):
    """Messages of any size are read straight."""
    return start(message(maildex), passthrough="1")


@pytest.fixture(name="m", params=["straight", "through-us"])
def either_way(maildex, request):
    message(maildex)
    return start(maildex, passthrough="1") if request.param == "straight" else maildex.fs_start(passthrough="0")


def equal(m, path):
    above, below = os.stat(m.up(path)), os.stat(m.low(path))
    for f in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_blocks", "st_nlink"):
        assert getattr(above, f) == getattr(below, f), f


def read(path):
    with open(path, "rb") as f:
        return f.read()


# -- which ones


def opens(m):
    status = m.fs_status()
    return int(status["maildexfs.passthrough.opens"]), int(status["maildexfs.passthrough.beside"])


def test_big_messages_that_are_read(maildex):
    message(maildex)
    for path, size in (("u/new/big", 65536), ("u/cur/small", 65535), ("u/tmp/big", 65536), ("u/dovecot-uidlist", 65536)):
        touch(maildex.low(path), b"x" * size)
    start(maildex, passthrough="64K")
    for path, flags, straight in (
        (maildex.msg, os.O_RDONLY, 1),
        ("u/new/big", os.O_RDONLY, 1),
        ("u/new/big", os.O_RDONLY | os.O_APPEND | os.O_NOATIME, 1),
        ("u/cur/small", os.O_RDONLY, 0),
        ("u/tmp/big", os.O_RDONLY, 0),
        ("u/dovecot-uidlist", os.O_RDONLY, 0),
        ("u/new/big", os.O_RDWR, 0),
        ("u/new/big", os.O_WRONLY, 0),
        ("u/new/big", os.O_RDONLY | os.O_DIRECT, 0),
        ("u/new/big", os.O_WRONLY | os.O_TRUNC, 0),
    ):
        with maildex.counting("passthrough.opens", "passthrough.beside") as grown:
            with opened(maildex.up(path), flags):
                pass
        assert grown == {"passthrough.opens": straight, "passthrough.beside": 0}, (path, flags)


def test_none_if_so_configured(maildex):
    message(maildex).fs_start(passthrough="0")
    assert read(maildex.up(maildex.msg)) == DATA
    assert maildex.fs_status()["maildexfs.passthrough"] == "off: as configured" and opens(maildex) == (0, 0)


def test_no_byte_comes_through_us(s):
    """maildexfs is stopped, and the message is read all the same."""
    with opened(s.up(s.msg), os.O_RDONLY) as fd, mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as view:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with standing_still(s.fs):
            assert os.pread(fd, SIZE, 0) == DATA == view[:]
    assert opens(s) == (1, 0)


def test_open_messages_are_read_on_when_maildexfs_dies(s):
    fd = os.open(s.up(s.msg), os.O_RDONLY)
    s.fs_kill()
    assert os.pread(fd, SIZE, 0) == DATA
    refused(errno.ENOTCONN, os.open, s.up(s.msg), os.O_RDONLY)
    refused(errno.ENOTCONN, os.close, fd)


def test_a_filesystem_that_the_kernel_does_not_take(maildex):
    """An overlay: said once; read through us."""
    message(maildex)
    for d in ("upper", "work", "over"):
        os.mkdir(os.path.join(maildex.dir, d))
    layers = f"lowerdir={maildex.root},upperdir={maildex.dir}/upper,workdir={maildex.dir}/work"
    mounted = ["mount", "-t", "overlay", "-o", layers, "overlay", maildex.dir + "/over"]
    if subprocess.run(mounted, check=False, stderr=subprocess.PIPE).returncode:
        pytest.skip("no overlay can be mounted over this filesystem")
    maildex.conf["root"] = maildex.dir + "/over"
    start(maildex, passthrough="1")
    for _ in range(3):
        assert read(maildex.up(maildex.msg)) == DATA
    assert opens(maildex) == (0, 0)
    assert maildex.fs_logged().count("big messages are read through maildexfs") == 1


# -- reading


def test_all_ways_to_read(m):
    with opened(m.up(m.msg), os.O_RDONLY) as fd, opened(m.up("u/out"), os.O_RDWR | os.O_CREAT) as out:
        assert os.read(fd, 1000) == DATA[:1000]
        assert os.pread(fd, SIZE, 0) == DATA and os.pread(fd, 10, SIZE) == b"" and os.pread(fd, 10, SIZE - 3) == DATA[-3:]
        assert os.lseek(fd, 0, os.SEEK_END) == SIZE == os.fstat(fd).st_size and os.lseek(fd, 0, os.SEEK_HOLE) == SIZE
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with mmap.mmap(fd, SIZE, flags=kind, prot=mmap.PROT_READ) as view:
                assert view[:] == DATA
        sent = 0
        while sent < SIZE:
            sent += os.sendfile(out, fd, sent, SIZE - sent)
        assert os.pread(out, SIZE + 1, 0) == DATA
        os.ftruncate(out, 0)
        copied = 0
        while copied < SIZE:
            copied += os.copy_file_range(fd, out, SIZE - copied, copied, copied)
        assert os.pread(out, SIZE + 1, 0) == DATA
        r, w = os.pipe()
        assert os.splice(fd, w, 5000, offset_src=70000) == 5000 and os.read(r, 5000) == DATA[70000:75000]
        os.close(r)
        os.close(w)
        refused(errno.EBADF, os.write, fd, b"x")
    assert read(m.up(m.msg)) == read(m.low(m.msg)) == DATA


def test_read_without_the_cache(m):
    """O_DIRECT with and without a reader that is straight."""
    with mmap.mmap(-1, 8 * PAGE) as buf:
        for other in (None, os.open(m.up(m.msg), os.O_RDONLY)):
            with opened(m.up(m.msg), os.O_RDONLY | os.O_DIRECT) as fd:
                assert os.preadv(fd, [buf], PAGE) == 8 * PAGE and buf[:] == DATA[PAGE : 9 * PAGE]
            if other is not None:
                os.close(other)


def test_without_a_name(m):
    with open(m.up(m.msg), "rb") as f:
        os.unlink(m.up(m.msg))
        assert f.read() == DATA and os.fstat(f.fileno()).st_size == SIZE
        with open(f"/proc/self/fd/{f.fileno()}", "rb") as again:
            assert again.read() == DATA
        with mmap.mmap(f.fileno(), SIZE, prot=mmap.PROT_READ) as view:
            f.close()
            assert view[:] == DATA
    eventually("the name to be gone", lambda: not os.path.exists(m.up(m.msg)))


def test_with_another_name(m):
    os.link(m.low(m.msg), m.low("u/tmp/same"))
    other = message(m, "u/cur/other", b"y" * SIZE).msg
    with open(m.up("u/cur/1600000000.M1P1.host:2,S"), "rb") as f:
        os.rename(f.name, m.up("u/cur/renamed"))
        assert f.read() == read(m.up("u/cur/renamed")) == read(m.up("u/tmp/same")) == DATA
        os.rename(m.up(other), m.up("u/cur/renamed"))
        assert os.pread(f.fileno(), SIZE, 0) == DATA and read(m.up("u/cur/renamed")) == b"y" * SIZE


def test_replaced_below(m):
    """As another host does it; the open file stays what it is."""
    with open(m.up(m.msg), "rb") as f:
        os.rename(touch(m.low("u/tmp/x"), b"z" * SIZE), m.low(m.msg))
        assert f.read() == DATA
    eventually("the new one", lambda: read(m.up(m.msg)) == b"z" * SIZE)


def test_locks(m):
    with open(m.up(m.msg), "rb") as f, open(m.up(m.msg), "rb") as g:
        fcntl.flock(f, fcntl.LOCK_EX)
        refused(errno.EAGAIN, fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(f, fcntl.LOCK_UN)
        fcntl.lockf(f, fcntl.LOCK_SH)

        def try_it():
            with open(m.up(m.msg), "r+b") as h:
                fcntl.lockf(h, fcntl.LOCK_EX | fcntl.LOCK_NB)

        refused(errno.EAGAIN, as_user, 0, try_it)
        fcntl.lockf(f, fcntl.LOCK_UN)
        as_user(0, try_it)
        assert f.read() == DATA


# -- written all the same


def test_a_writer_beside_a_reader(m):
    with open(m.up(m.msg), "rb") as f, mmap.mmap(f.fileno(), SIZE, prot=mmap.PROT_READ) as view:
        with opened(m.up(m.msg), os.O_RDWR) as fd:
            assert os.pread(fd, SIZE, 0) == DATA
            os.pwrite(fd, b"HELLO", 5000)
            assert os.pread(f.fileno(), 5, 5000) == view[5000:5005] == os.pread(fd, 5, 5000) == b"HELLO"
            equal(m, m.msg)
            with mmap.mmap(fd, SIZE) as writable:
                writable[9000:9003] = b"map"
                writable.flush()
                assert os.pread(f.fileno(), 3, 9000) == view[9000:9003] == os.pread(fd, 3, 9000) == b"map"
            os.fsync(fd)
    assert opens(m) in ((1, 1), (0, 0))
    assert read(m.low(m.msg))[8999:9004] == DATA[8999:9000] + b"map" + DATA[9003:9004]


def test_a_message_that_grows_and_shrinks_beside_a_reader(m):
    want = bytearray(DATA)
    with open(m.up(m.msg), "rb") as f:

        def same():
            equal(m, m.msg)
            assert os.fstat(f.fileno()).st_size == len(want) == os.lseek(f.fileno(), 0, os.SEEK_END)
            assert os.pread(f.fileno(), 2 * SIZE, 0) == want
            with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as view:
                assert view[:] == want

        with opened(m.up(m.msg), os.O_WRONLY | os.O_APPEND) as fd:
            for piece in (b"a" * 10, b"b" * 5000):
                os.write(fd, piece)
                want += piece
                same()
        with opened(m.up(m.msg), os.O_RDWR) as fd:
            os.ftruncate(fd, 1000)
            del want[1000:]
            same()
            os.posix_fallocate(fd, 0, 3000)
            want += bytes(2000)
            same()
            with opened(m.low("u"), os.O_RDONLY), open(m.up("u/source"), "x+b") as source:
                source.write(b"copied")
                source.flush()
                assert os.copy_file_range(source.fileno(), fd, 6, 0, 3000) == 6
            want += b"copied"
            same()
        os.truncate(m.up(m.msg), 500)
        del want[500:]
        same()
        with open(m.up(m.msg), "wb") as g:
            assert os.fstat(f.fileno()).st_size == 0
            g.write(b"new")
        want[:] = b"new"
        same()


def test_a_reader_beside_a_writer(m):
    """The writer was first: all go through us, as long as it is there."""
    with opened(m.up(m.msg), os.O_RDWR) as fd:
        with open(m.up(m.msg), "rb") as f, mmap.mmap(f.fileno(), SIZE, prot=mmap.PROT_READ) as view:
            os.pwrite(fd, b"HELLO", 5000)
            assert os.pread(f.fileno(), 5, 5000) == view[5000:5005] == b"HELLO"
            equal(m, m.msg)
            assert opens(m) == (0, 0)
    assert read(m.up(m.msg))[4990:5010] == DATA[4990:5000] + b"HELLO" + DATA[5005:5010]


def test_delivered_and_read_at_once(m):
    """Written in tmp/ through the mount, renamed while the agent still has it open."""
    with open(m.up("u/tmp/1.x"), "xb") as f:
        f.write(DATA)
        f.flush()
        os.rename(f.name, m.up("u/new/1.x"))
        assert read(m.up("u/new/1.x")) == DATA
    assert read(m.up("u/new/1.x")) == DATA
    os.rename(m.up("u/new/1.x"), m.up("u/cur/1.x:2,"))
    assert read(m.up("u/cur/1.x:2,")) == DATA


def follow(path, end):
    fd, size = os.open(path, os.O_RDONLY), 0
    while size < end:
        size = os.fstat(fd).st_size
        with mmap.mmap(fd, size, prot=mmap.PROT_READ) as view:  # past its end: SIGBUS
            assert view[size - 1] in b"x" + DATA[-1:] and os.pread(fd, 1, size - 1) == view[size - 1 : size]


def test_a_size_that_is_told_is_there(s):
    """As test_growth.py, but the readers are straight: what they read and map is the lower file, whatever is told."""
    step, count = 1000, 3000
    with open(s.up(s.msg), "rb"):
        jobs = [CONTEXT.Process(target=follow, args=(s.up(s.msg), SIZE + step * count)) for _ in range(2)]
        for j in jobs:
            j.start()
        with opened(s.up(s.msg), os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(count):
                os.write(fd, b"x" * step)
        for j in jobs:
            j.join(60)
            j.kill()
    assert [j.exitcode for j in jobs] == [0, 0]


# -- users


def test_users(s):
    os.mkdir(s.low("team"))
    for half in ("new", "cur", "tmp"):
        os.mkdir(s.low("team", half))
    path = "team/cur/1.x:2,S"
    touch(s.low(path), DATA)
    os.chown(s.low(path), A, TEAM)
    os.chmod(s.low(path), 0o640)

    def look(flags=os.O_RDONLY):
        with opened(s.up(path), flags) as fd:
            return os.pread(fd, SIZE, 0) == DATA

    refused(errno.EACCES, as_user, B, look)
    assert as_user(A, look) and opens(s) == (1, 0)
    assert as_user(B, look, groups=[TEAM]) and opens(s) == (1, 0)  # who is not the owner is read for by us
    # Whoever is first lends nobody else his name.
    r, w = os.pipe()

    def hold():
        with opened(s.up(path), os.O_RDONLY):
            os.write(w, b"!")
            os.read(done[0], 1)

    done = os.pipe()
    first = threading.Thread(target=as_user, args=(A, hold))
    first.start()
    assert os.read(r, 1) == b"!"
    assert as_user(B, look, groups=[TEAM]) and opens(s) == (2, 1)
    assert as_user(A, look, gid=TEAM) and opens(s) == (2, 2)
    assert as_user(A, look) and opens(s) == (3, 2)
    assert as_user(A, lambda: look(os.O_RDWR)) and opens(s) == (3, 3)
    refused(errno.EACCES, as_user, B, look)
    refused(errno.EACCES, as_user, B, lambda: look(os.O_RDWR), groups=[TEAM])
    os.write(done[1], b"!")
    first.join()
    for fd in (r, w, *done):
        os.close(fd)


# -- many at a time


def open_and_close(path, seed, rounds):
    rng, held = random.Random(seed), []
    for _ in range(rounds):
        if len(held) < 4 and rng.random() < 0.6:
            held.append(os.open(path, rng.choice((os.O_RDONLY, os.O_RDONLY, os.O_RDONLY, os.O_RDWR))))
            at = rng.randrange(SIZE - 10)
            assert os.pread(held[-1], 10, at) == DATA[at : at + 10]
        elif held:
            os.close(held.pop(rng.randrange(len(held))))


def test_opened_and_closed_by_many(m):
    """Each open decides, or follows: none is refused (EIO), whatever the others do at that moment."""
    jobs = [CONTEXT.Process(target=open_and_close, args=(m.up(m.msg), seed, 4000)) for seed in range(4)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join(120)
        j.kill()
    assert [j.exitcode for j in jobs] == [0] * len(jobs)
    assert m.fs_status()["maildexfs.passthrough"] != "on" or all(opens(m))


@pytest.fixture(name="small_disk")
def filesystem_of_its_own(maildex):
    """At v below the lower tree."""
    os.mkdir(maildex.low("v"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", maildex.low("v")], check=True)
    for half in ("new", "cur", "tmp"):
        os.mkdir(maildex.low("v", half))
    yield maildex
    subprocess.run(["umount", "-l", maildex.low("v")], check=True)


def test_nothing_is_kept(small_disk):
    """A message that was read and unlinked takes no space: the kernel holds none of its files."""
    m = start(small_disk, passthrough="1")
    free = os.statvfs(m.low("v")).f_bfree
    for n in range(10):
        path = message(m, f"v/cur/{n}", DATA).msg
        with open(m.up(path), "rb") as f, open(m.up(path), "rb") as g, open(m.up(path), "r+b") as h:
            assert f.read() == g.read() == h.read() == DATA
        os.unlink(m.up(path))
    assert opens(m) == (20, 10)
    eventually("the space to be free again", lambda: os.statvfs(m.low("v")).f_bfree == free)

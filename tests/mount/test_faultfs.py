# SPDX-License-Identifier: GPL-2.0-or-later
"""The tool that other tests let a lower tree misbehave with (tests/support/faultfs.py)."""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from daemon import BUILD, until
from faultfs import Control, Faulty, FaultFs, Hold
from host import DT_DIR, DT_REG, acting_as, as_user, getdents_all, libc, ls, mounts_below, opened, refused, touch

pytestmark = pytest.mark.skipif(not BUILD.endswith("gcc"), reason="nothing of maildex runs in it")

OWNER = 2345
SECOND = 10**9
FORCE_SYNC, EMPTY_PATH, BASIC_STATS = 0x2000, 0x1000, 0x7FF


@contextlib.contextmanager
def mirrored(**options):
    with tempfile.TemporaryDirectory(prefix="faultfs-") as top:
        os.chmod(top, 0o755)
        for name in ("made", "mirror"):
            os.mkdir(os.path.join(top, name))
        os.makedirs(os.path.join(top, "made/u/cur"))
        touch(os.path.join(top, "made/u/cur/x"), b"data")
        with FaultFs(os.path.join(top, "made"), os.path.join(top, "mirror"), **options) as f:
            yield f


@pytest.fixture(name="f")
def plain():
    with mirrored() as f:
        yield f


def up(f, *parts):
    return os.path.join(f.mirror, *parts)


def low(f, *parts):
    return os.path.join(f.made, *parts)


def read(path):
    with open(path, "rb") as f:
        return f.read()


@contextlib.contextmanager
def meanwhile(what, *args):
    """what() runs in a thread; the block ends when it has. Yields a list: [] or [what it returned or raised]."""
    done = []

    def run():
        try:
            done.append(what(*args))
        except OSError as e:
            done.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    thread.join(60)
    assert done


def forced_size(at):
    """Of a descriptor or a path, by statx(2) with AT_STATX_FORCE_SYNC."""
    buf = ctypes.create_string_buffer(256)
    fd, path = (at, b"") if isinstance(at, int) else (-100, os.fsencode(at))
    if libc.statx(fd, path, FORCE_SYNC | EMPTY_PATH, BASIC_STATS, buf) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int.from_bytes(buf.raw[40:48], "little")


# -- a mirror


def test_it_is_taken_for_sshfs(f):
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert [line for line in mounts if f" {f.mirror} " in line and " fuse.sshfs " in line]


def test_files_are_those_below(f):
    os.link(low(f, "u/cur/x"), low(f, "u/link"))
    os.symlink("cur/x", up(f, "u/symlink"))
    os.mkdir(up(f, "u/d"), 0o2750)
    os.mkfifo(up(f, "u/fifo"))
    for path in ("", "u", "u/cur", "u/cur/x", "u/link", "u/symlink", "u/d", "u/fifo"):
        above, below = os.lstat(up(f, path)), os.lstat(low(f, path))
        for field in ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"):
            assert getattr(above, field) == getattr(below, field), (path, field)
    assert os.readlink(up(f, "u/symlink")) == "cur/x"
    assert read(up(f, "u/symlink")) == b"data"
    assert ls(up(f, "u")) == ls(low(f, "u"))
    with opened(up(f, "u")) as fd:
        assert {(n, ino, kind) for ino, _, kind, n in getdents_all(fd) if n not in (b".", b"..")} == {
            (os.fsencode(e.name), e.inode(), os.lstat(e.path).st_mode >> 12) for e in os.scandir(low(f, "u"))
        }


def test_changes_are_made_below(f):
    touch(up(f, "u/a"), b"1234567890")
    with open(up(f, "u/a"), "r+b") as file:
        file.truncate(5)
        os.fsync(file.fileno())
        os.posix_fallocate(file.fileno(), 0, 4096)
    assert read(low(f, "u/a")) == b"12345".ljust(4096, b"\0")
    os.rename(up(f, "u/a"), up(f, "u/b"))
    os.chmod(up(f, "u/b"), 0o640)
    os.chown(up(f, "u/b"), 7, 8)
    os.utime(up(f, "u/b"), ns=(SECOND + 1, SECOND + 2))
    os.setxattr(up(f, "u/b"), "user.k", b"v")
    st = os.stat(low(f, "u/b"))
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_atime_ns, st.st_mtime_ns) == (0o640, 7, 8, SECOND + 1, SECOND + 2)
    assert os.listxattr(up(f, "u/b")) == ["user.k"] and os.getxattr(low(f, "u/b"), "user.k") == b"v"
    os.removexattr(up(f, "u/b"), "user.k")
    os.unlink(up(f, "u/b"))
    os.mkdir(up(f, "u/d"))
    os.rmdir(up(f, "u/d"))
    assert ls(low(f, "u")) == {b"cur"}
    assert os.statvfs(up(f)).f_blocks == os.statvfs(low(f)).f_blocks


def test_calls_are_the_callers(f):
    os.chown(low(f, "u"), OWNER, OWNER)
    os.chmod(low(f, "u"), 0o770)
    with acting_as(OWNER):
        touch(up(f, "u/own"))
        refused(errno.EACCES, os.mkdir, up(f, "d"))
    assert os.stat(low(f, "u/own")).st_uid == OWNER
    refused(errno.EACCES, as_user, OWNER + 1, lambda: os.listdir(up(f, "u")))
    assert as_user(OWNER + 1, lambda: os.listdir(up(f, "u")), groups=[OWNER])


def test_many_names_and_a_listing_that_goes_on(f):
    names = {f"{i:04}{'n' * 100}".encode() for i in range(1500)}
    for name in names:
        touch(os.path.join(os.fsencode(low(f, "u/cur")), name))
    assert ls(up(f, "u/cur")) == names | {b"x"}
    with opened(up(f, "u/cur")) as fd:
        assert {name for *_, name in getdents_all(fd, size=1000)} == names | {b"x", b".", b".."}


def test_locks(f):
    with open(up(f, "u/cur/x"), "r+b") as a, open(low(f, "u/cur/x"), "r+b") as b:
        fcntl.flock(a, fcntl.LOCK_EX)
        refused(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(a, fcntl.LOCK_UN)
        fcntl.lockf(b, fcntl.LOCK_EX)
        refused(errno.EAGAIN, fcntl.lockf, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with meanwhile(fcntl.lockf, a, fcntl.LOCK_EX):
            until("the wait", lambda: f.counts()["lock u/cur/x"] >= 2)
            fcntl.lockf(b, fcntl.LOCK_UN)


def test_another_host_renames_and_removes(f):
    """A file that is known is found whatever it is called; one that is gone is stale."""
    with opened(up(f, "u/cur")) as fd:
        os.rename(low(f, "u"), low(f, "v"))
        assert os.listdir(fd) == ["x"]
        assert ls(up(f, "v/cur")) == {b"x"}
        os.unlink(low(f, "v/cur/x"))
        os.rmdir(low(f, "v/cur"))
        refused(errno.ESTALE, os.fstat, fd)
        refused(errno.ESTALE, os.listdir, fd)
    refused(errno.ENOENT, os.stat, up(f, "u"))


# -- options


def test_attributes_are_kept_but_a_forced_statx_asks():
    with mirrored(attr_ms=600000) as f, opened(up(f, "u/cur/x"), os.O_RDONLY) as fd:
        assert os.fstat(fd).st_size == 4
        with open(low(f, "u/cur/x"), "ab") as file:
            file.write(b"more")
        assert os.fstat(fd).st_size == 4
        assert forced_size(fd) == 8 and os.fstat(fd).st_size == 8


def test_names_are_kept():
    with mirrored(attr_ms=600000, entry_ms=600000) as f:
        os.stat(up(f, "u/cur/x"))
        os.rename(low(f, "u/cur/x"), low(f, "u/cur/y"))
        os.stat(up(f, "u/cur/x"))
        os.stat(up(f, "u/cur/y"))
        refused(errno.ENOENT, os.stat, up(f, "u/cur/z"))
        touch(low(f, "u/cur/z"))
        os.stat(up(f, "u/cur/z"))


def test_nothing_is_kept(f):
    os.stat(up(f, "u/cur/x"))
    os.rename(low(f, "u/cur/x"), low(f, "u/cur/y"))
    refused(errno.ENOENT, os.stat, up(f, "u/cur/x"))
    with open(low(f, "u/cur/y"), "ab") as file:
        file.write(b"more")
    assert os.stat(up(f, "u/cur/y")).st_size == 8


@pytest.mark.parametrize("tick_ms", [4, 1000])
def test_ticks(tick_ms):
    with mirrored(tick_ms=tick_ms) as f:
        os.utime(low(f, "u/cur"), ns=(1999999999, 1999999999))
        above, below = os.stat(up(f, "u/cur")), os.stat(low(f, "u/cur"))
        tick = tick_ms * 10**6
        assert above.st_mtime_ns == 1999999999 // tick * tick
        assert above.st_ctime_ns == below.st_ctime_ns // tick * tick


def test_squash():
    with mirrored(squash=1) as f:
        os.chmod(low(f, "u"), 0o700)
        refused(errno.EACCES, os.listdir, up(f, "u"))
        os.chown(low(f, "u"), OWNER, OWNER)
        with acting_as(OWNER):
            assert os.listdir(up(f, "u")) == ["cur"]
        os.chmod(low(f), 0o777)
        touch(up(f, "made by root"))
        assert os.stat(low(f, "made by root")).st_uid == 65534


def test_sizes_of_directories_count():
    with mirrored(sized=1) as f:
        for i in range(3):
            touch(low(f, f"u/cur/{i}"))
        assert os.stat(up(f, "u/cur")).st_size == 4
        os.unlink(up(f, "u/cur/0"))
        assert (os.stat(up(f, "u/cur")).st_size, forced_size(up(f, "u")), os.stat(up(f, "u/cur/x")).st_size) == (3, 1, 4)


@pytest.mark.parametrize("unknown", [0, 1])
def test_types_in_listings(unknown):
    with mirrored(unknown=unknown) as f:
        touch(low(f, "u/file"))
        with opened(up(f, "u")) as fd:
            kinds = {name: kind for _, _, kind, name in getdents_all(fd)}
        assert (kinds[b"cur"], kinds[b"file"]) == ((0, 0) if unknown else (DT_DIR, DT_REG))


def nfs_names(path):
    return [n for n in os.listdir(path) if re.fullmatch(r"\.nfs[0-9a-f]{24}", n)]


@pytest.mark.parametrize("replaced", [False, True])
def test_open_files_that_are_removed_have_silly_names(replaced):
    with mirrored(silly=1) as f:
        touch(low(f, "u/cur/other"), b"other")
        with open(up(f, "u/cur/x"), "rb") as one, open(up(f, "u/cur/x"), "rb") as two:
            if replaced:
                os.rename(up(f, "u/cur/other"), up(f, "u/cur/x"))
            else:
                os.unlink(up(f, "u/cur/x"))
            (name,) = nfs_names(low(f, "u/cur"))
            assert one.read() == b"data" and os.fstat(one.fileno()).st_nlink == 1
            assert nfs_names(up(f, "u/cur")) == [name]
            one.close()
            until("the release", lambda: f.counts().get(f"release u/cur/{name}") == 1)
            assert nfs_names(low(f, "u/cur")) == [name]
            two.close()
        until("the last close", lambda: not nfs_names(low(f, "u/cur")))
        os.unlink(up(f, "u/cur/x" if replaced else "u/cur/other"))
        assert ls(low(f, "u/cur")) == set()


def test_without_silly_names(f):
    with open(up(f, "u/cur/x"), "rb") as file:
        os.unlink(up(f, "u/cur/x"))
        assert ls(low(f, "u/cur")) == set()
        assert file.read() == b"data"


def test_numbers_come_from_names():
    with mirrored(numbers=1) as f:
        touch(low(f, "u/cur/1600000001.M1.host"))
        os.mkdir(low(f, "u/cur/77"))
        real = {e.name: e.inode() for e in os.scandir(low(f, "u/cur"))}
        shown = {**real, "1600000001.M1.host": 1600000001}
        with opened(up(f, "u/cur")) as fd:
            assert {os.fsdecode(n): ino for ino, _, _, n in getdents_all(fd) if not n.startswith(b".")} == shown
        assert {n: os.stat(up(f, "u/cur", n)).st_ino for n in shown} == shown
        os.unlink(up(f, "u/cur/1600000001.M1.host"))
        touch(up(f, "u/cur/1600000001.another"), b"2")
        assert os.stat(up(f, "u/cur/1600000001.another")).st_ino == 1600000001
        os.rename(up(f, "u/cur/1600000001.another"), up(f, "u/cur/5"))
        assert os.stat(up(f, "u/cur/5")).st_ino == 5


# -- orders


def test_the_nth_call_fails(f):
    f.fail("unlink", "u/cur/*", errno.EIO, nth=2, times=2)
    for i in range(5):
        touch(low(f, f"u/cur/{i}"))
        if i in (1, 2):
            refused(errno.EIO, os.unlink, up(f, f"u/cur/{i}"))
        else:
            os.unlink(up(f, f"u/cur/{i}"))
    assert ls(low(f, "u/cur")) == {b"x", b"1", b"2"}


def test_all_calls_fail_until_the_rules_are_cleared(f):
    f.fail("*", "*", errno.ESTALE, times=0)
    for _ in range(3):
        refused(errno.ESTALE, os.listdir, up(f))
    f.clear()
    assert os.listdir(up(f)) == ["u"]


CALLS = {
    "getattr": lambda f: os.fstat(f.directory),
    "statx": lambda f: forced_size(f.directory),
    "readlink": lambda f: os.readlink(up(f, "u/symlink")),
    "mknod": lambda f: os.mkfifo(up(f, "u/fifo")),
    "mkdir": lambda f: os.mkdir(up(f, "u/d")),
    "unlink": lambda f: os.unlink(up(f, "u/cur/x")),
    "rmdir": lambda f: os.rmdir(up(f, "u/empty")),
    "symlink": lambda f: os.symlink("x", up(f, "u/s")),
    "rename": lambda f: os.rename(up(f, "u/cur/x"), up(f, "u/cur/y")),
    "link": lambda f: os.link(up(f, "u/cur/x"), up(f, "u/cur/y")),
    "chmod": lambda f: os.chmod(up(f, "u/cur/x"), 0o600),
    "chown": lambda f: os.chown(up(f, "u/cur/x"), 1, 1),
    "truncate": lambda f: os.truncate(up(f, "u/cur/x"), 1),
    "open": lambda f: read(up(f, "u/cur/x")),
    "read": lambda f: read(up(f, "u/cur/x")),
    "create": lambda f: touch(up(f, "u/cur/y")),
    "write": lambda f: os.write(f.file.fileno(), b"x"),
    "flush": lambda f: os.close(os.dup(f.file.fileno())),
    "fsync": lambda f: os.fsync(f.file.fileno()),
    "lseek": lambda f: os.lseek(f.file.fileno(), 0, os.SEEK_DATA),
    "fallocate": lambda f: os.posix_fallocate(f.file.fileno(), 0, 100),
    "copy_file_range": lambda f: os.copy_file_range(f.file.fileno(), f.file.fileno(), 1, 0, 100),
    "lock": lambda f: fcntl.lockf(f.file, fcntl.LOCK_EX),
    "flock": lambda f: fcntl.flock(f.file, fcntl.LOCK_EX),
    "statfs": lambda f: os.statvfs(up(f, "u/cur")),
    "setxattr": lambda f: os.setxattr(up(f, "u/cur/x"), "user.a", b"v"),
    "getxattr": lambda f: os.getxattr(up(f, "u/cur/x"), "user.k"),
    "listxattr": lambda f: os.listxattr(up(f, "u/cur/x")),
    "removexattr": lambda f: os.removexattr(up(f, "u/cur/x"), "user.k"),
    "opendir": lambda f: os.listdir(up(f, "u/cur")),
    "readdir": lambda f: os.listdir(up(f, "u/cur")),
    "fsyncdir": lambda f: os.fsync(f.directory),
    "utimens": lambda f: os.utime(up(f, "u/cur/x")),
    "access": lambda f: os.chdir(up(f, "u/cur")),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_call_can_fail(f, call):
    os.symlink("x", low(f, "u/symlink"))
    os.mkdir(low(f, "u/empty"))
    os.setxattr(low(f, "u/cur/x"), "user.k", b"v")
    with open(up(f, "u/cur/x"), "r+b", buffering=0) as f.file, opened(up(f, "u/cur")) as f.directory:
        f.fail(call, "u/*", errno.EIO, times=2 if call == "read" else 1)  # what cannot be read ahead is tried again
        refused(errno.EIO, CALLS[call], f)
        before = os.getcwd()
        CALLS[call](f)  # the next one does not
        os.chdir(before)


@pytest.mark.parametrize("call", ["release", "releasedir"])
def test_what_cannot_fail_can_be_held(f, call):
    with f.hold(call, "u/*") as h:
        fd = os.open(up(f, "u/cur/x" if call == "release" else "u/cur"), os.O_RDONLY)
        os.close(fd)
        h.wait()
        h.release()


@pytest.mark.parametrize("pattern", ["u/cur/x", "u/y", "u/[xy]"])
@pytest.mark.parametrize("call", [os.rename, os.link])
def test_old_and_new_path(f, call, pattern):
    f.fail(call.__name__, pattern, errno.EIO)
    refused(errno.EIO, call, up(f, "u/cur/x"), up(f, "u/y"))
    call(up(f, "u/cur/x"), up(f, "u/y"))


def test_a_call_is_done_but_its_answer_is_lost(f):
    f.lose("rename", "*", errno.EIO)
    refused(errno.EIO, os.rename, up(f, "u/cur/x"), up(f, "u/cur/y"))
    f.lose("mkdir", "*", errno.EIO, nth=2)
    os.mkdir(up(f, "u/1"))
    refused(errno.EIO, os.mkdir, up(f, "u/2"))
    f.lose("mkdir", "*", errno.ESTALE)
    refused(errno.EEXIST, os.mkdir, up(f, "u/3"))  # the kernel tries again
    assert ls(low(f, "u")) == {b"1", b"2", b"3", b"cur"} and ls(low(f, "u/cur")) == {b"y"}


def test_delays(f):
    f.delay("opendir", "u/cur", 60)
    f.delay("opendir", "u/*", 40)
    start = time.monotonic()
    os.listdir(up(f, "u/cur"))
    assert time.monotonic() - start >= 0.1
    f.delay("opendir", "u", 600000)
    with meanwhile(os.listdir, up(f, "u")) as done:
        until("the call", lambda: f.counts().get("opendir u"))
        assert not done
        f.clear()
    assert done == [["cur"]]


def test_a_held_call_is_not_made_and_hinders_nobody(f):
    touch(low(f, "u/cur/y"))
    with f.hold("rename", "u/cur/x", nth=1) as h, meanwhile(os.rename, up(f, "u/cur/x"), up(f, "u/x")) as done:
        h.wait()
        assert read(low(f, "u/cur/x")) == b"data"
        with open(low(f, "u/cur/y"), "ab") as file:
            file.write(b"y")
        assert os.listdir(up(f)) == ["u"]
        assert not done
        h.release()
    assert done == [None] and read(low(f, "u/x")) == b"data"


def test_the_nth_is_held_and_only_one(f):
    with f.hold("opendir", "u/cur", nth=2) as h:
        os.listdir(up(f, "u/cur"))
        with meanwhile(os.listdir, up(f, "u/cur")):
            h.wait()
            assert os.listdir(up(f, "u/cur")) == ["x"]  # a third one passes
            h.release()


def test_many_calls_are_held(f):
    """More than libfuse has threads for, unless it is told."""
    with contextlib.ExitStack() as stack:
        holds = [stack.enter_context(f.hold("getattr", f"u/{i}")) for i in range(40)]
        done = [stack.enter_context(meanwhile(os.path.exists, up(f, f"u/{i}"))) for i in range(40)]
        for h in holds:
            h.wait()
        assert os.listdir(up(f, "u/cur")) == ["x"]
        assert not any(done)
        f.clear()


def test_clear_lets_held_calls_go_on(f):
    with f.hold("getattr", "u/cur/x") as h, f.hold("getattr", "never") as other, meanwhile(os.stat, up(f, "u/cur/x")):
        h.wait()
        f.clear()
        with pytest.raises(AssertionError, match="gone"):
            other.wait()


def test_a_held_call_goes_on_when_who_ordered_it_dies(f, processes):
    other = processes()
    other(orders_and_keeps, f.path)
    with meanwhile(os.stat, up(f, "u/cur/x")) as done:
        until("the call", lambda: f.counts().get("getattr u/cur/x"))
        assert not done
        os.kill(other.pid, signal.SIGKILL)
    assert done[0].st_size == 4


def test_no_call_is_held_for_ever():
    """Whoever ordered it cannot release it while it hangs in the kernel itself."""
    with mirrored(hold_s=1) as f, f.hold("getattr", "u/cur/x"):
        assert os.stat(up(f, "u/cur/x")).st_size == 4


kept = []


def orders_and_keeps(path):
    kept.append(Hold(path, "getattr", "u/cur/x", 1))


def test_rules_end_with_their_connection(f):
    with contextlib.closing(Control(f.path)) as c:
        c.ask("fail", "opendir", errno.EIO, 1, 0, "*")
        refused(errno.EIO, os.listdir, up(f))
    until("the end of the rule", lambda: as_value(os.listdir, up(f)) == ["u"])


def as_value(what, *args):
    try:
        return what(*args)
    except OSError as e:
        return e


def test_between(f):
    with f.between("opendir", "u/cur", lambda: touch(low(f, "u/cur/y")), nth=2) as b:
        assert ls(up(f, "u/cur")) == {b"x"}
        assert not b.ran
        assert ls(up(f, "u/cur")) == {b"x", b"y"}
    assert b.ran
    assert ls(up(f, "u/cur")) == {b"x", b"y"}


def test_between_through_the_mirror_itself(f):
    """A held call stands in the way of none but those that the kernel orders behind it."""
    with opened(up(f, "u/cur/x"), os.O_RDONLY) as fd:
        with f.between("getattr", "u/cur/x", lambda: os.rename(up(f, "u/cur"), up(f, "u/new"))) as b:
            assert forced_size(fd) == 4
    assert b.ran and os.listdir(low(f, "u")) == ["new"]


def test_between_that_does_not_come(f):
    with f.between("opendir", "u/cur", lambda: None) as b:
        pass
    assert not b.ran
    os.listdir(up(f, "u/cur"))


def test_between_that_fails(f):
    with pytest.raises(FileNotFoundError):
        with f.between("opendir", "u/cur", lambda: os.stat("/nonexistent")):
            assert ls(up(f, "u/cur")) == {b"x"}


def test_counts(f):
    odd = "u/cur/a b\nc\udcff"
    touch(low(f, odd))
    f.counts_reset()
    os.listdir(up(f, "u/cur"))
    os.listdir(up(f, "u/cur"))
    os.unlink(up(f, odd))
    os.rename(up(f, "u/cur/x"), up(f, "u/cur/y"))
    counts = f.counts()
    assert counts["opendir u/cur"] == 2 and counts[f"unlink {odd}"] == 1 and counts["rename u/cur/x"] == 1
    assert "unlink u/cur/x" not in counts
    f.counts_reset()
    assert f.counts() == {}


def test_more_counts_than_a_packet_holds(f):
    names = [f"{i}{'n' * 200}" for i in range(700)]
    for n in names:
        assert not os.path.exists(up(f, n))
    assert {f"getattr {n}" for n in names} <= set(f.counts())


def test_the_servers_clock_goes_back(f):
    times = os.stat(low(f, "u/cur"))
    f.clock(times.st_ctime_ns, 5 * SECOND)
    f.clock(times.st_ctime_ns + 1, 100 * SECOND)
    os.utime(low(f, "u"), ns=(SECOND, SECOND))
    st = os.stat(up(f, "u/cur"))
    assert (st.st_ctime_ns, st.st_mtime_ns) == (times.st_ctime_ns - 5 * SECOND, times.st_mtime_ns - 5 * SECOND)
    st = os.stat(up(f, "u"))
    assert (st.st_ctime_ns, st.st_mtime_ns) == (os.stat(low(f, "u")).st_ctime_ns - 105 * SECOND, SECOND)


def test_a_directory_is_rolled_back(f):
    now = os.stat(low(f, "u/cur")).st_ctime_ns
    f.stamp("u/cur", now, 7 * SECOND + 1, 6 * SECOND + 2)
    st = os.stat(up(f, "u/cur"))
    assert (st.st_ctime_ns, st.st_mtime_ns) == (7 * SECOND + 1, 6 * SECOND + 2)
    f.stamp("u/cur", now, 8 * SECOND, 6 * SECOND)
    assert os.stat(up(f, "u/cur")).st_ctime_ns == 8 * SECOND
    until("a tick of the clock", lambda: [touch(low(f, f"u/cur/{time.time_ns()}")), os.stat(low(f, "u/cur")).st_ctime_ns != now][1])
    assert os.stat(up(f, "u/cur")).st_ctime_ns == os.stat(low(f, "u/cur")).st_ctime_ns


@pytest.mark.parametrize(
    "order, said",
    [
        ("", "there is no order ''"),
        ("foo", "there is no order 'foo'"),
        ("clear now", "'clear' takes 0 fields"),
        ("hold getattr 1", "'hold' takes 3 fields"),
        ("hold getattr 1 ", "the pattern is empty"),
        ("hold foo 1 u", "there is no call 'foo'"),
        ("hold getattr 0 u", "'0' is no number from 1 to "),
        ("fail getattr EIO 1 1 u", "'EIO' is no number from 1 to 4095"),
        ("fail getattr 5 1 -1 u", "'-1' is no number from 0 to "),
        ("lose open 5 1 1 u", "the answer of 'open' cannot be lost"),
        ("lose foo 5 1 1 u", "the answer of 'foo' cannot be lost"),
        ("delay getattr 99999999999999999999 1 0 u", "is no number from 0 to 600000"),
        ("counts x", "'x' is no number from 0 to "),
        ("clock 1 ", "'' is no number from "),
        ("stamp 1 2 3 nonexistent", "nonexistent: No such file or directory"),
        ("stamp 1 2 3 u/cur/x", "u/cur/x: Not a directory"),
    ],
)
def test_bad_orders(f, order, said):
    with contextlib.closing(Control(f.path)) as c:
        c.sock.sendall(order.encode() or b"\0")
        with pytest.raises(ValueError, match=re.escape(said)):
            c.answer()
        c.ask("clear")
    assert os.listdir(up(f, "u/cur")) == ["x"]


# -- beginning and end


def test_what_cannot_be_mounted(tmp_path):
    with pytest.raises(AssertionError, match="No such file"):
        with FaultFs("/nonexistent", str(tmp_path)):
            pass
    with pytest.raises(AssertionError, match="nonsense"):
        with FaultFs(str(tmp_path), str(tmp_path), nonsense=1):
            pass


@pytest.mark.parametrize("busy", [False, True])
def test_nothing_is_left_behind_by_a_test_that_fails(busy):
    with contextlib.ExitStack() as stack:
        with pytest.raises(ZeroDivisionError):
            with mirrored() as f:
                process = f.process
                h = stack.enter_context(f.hold("getattr", "u/cur/x"))
                stack.enter_context(meanwhile(os.path.exists, up(f, "u/cur/x")))
                if busy:
                    stack.enter_context(opened(up(f, "u")))
                h.wait()
                raise ZeroDivisionError
        assert not mounts_below(f.mirror) and process.returncode == 0
        assert not os.path.exists(f.path)


def test_it_ends_when_it_is_unmounted():
    with mirrored() as f:
        subprocess.run(["umount", f.mirror], check=True)
        assert f.process.wait(60) == 0


# -- below maildex


def test_a_host():
    with Faulty(faults={"tick_ms": 4}, revalidate="1ms") as m:
        m.maildir("u", new=1, cur=2, uid=OWNER)
        m.start()
        m.fs_start()
        with acting_as(OWNER):
            touch(m.up("u/new/1800000000.M1.host"), b"data")
            assert len(m.same("u/new")) == 2
            with m.faults.between("opendir", "u/cur", lambda: os.unlink(m.there("u/cur/1600000000.M1P1.host:2,S"))) as b:
                assert len(ls(m.up("u/cur"))) == 1
            assert b.ran
            m.faults.fail("rename", "u/*", errno.EIO)
            names = (m.up("u/new/1800000000.M1.host"), m.up("u/cur/1800000000.M1.host:2,S"))
            refused(errno.EIO, os.rename, *names)
            os.rename(*names)
            m.same("u/new")
            m.same("u/cur")
        made, mounts = m.made, m.dir
    assert not os.path.exists(made) and not os.path.exists(mounts) and not mounts_below(mounts)


def test_two_hosts_over_one_tree(tmp_path):
    os.chmod(tmp_path, 0o755)
    made = str(tmp_path / "disk")
    os.mkdir(made)
    with pytest.raises(ZeroDivisionError):
        with Faulty(made=made, host="a") as a, Faulty(made=made, host="b") as b:
            a.maildir("u", cur=1)
            for m in (a, b):
                m.start()
                m.fs_start()
            touch(a.up("u/cur/y"))
            assert len(b.same("u/cur")) == 2
            raise ZeroDivisionError
    assert len(os.listdir(os.path.join(made, "u/cur"))) == 2

# SPDX-License-Identifier: GPL-2.0-or-later
"""Laws 5 and 6: everything that is no listing is the lower filesystem's, in the caller's name."""

import contextlib
import hashlib
import mmap
import os
import stat
import threading
from errno import EACCES, EEXIST, ENODATA, ENOENT, EPERM, ESTALE

import pytest

from host import as_user, eventually, ls, opened, refused, touch

A, B, C = 2001, 2002, 2003
TEAM = 3001
FIELDS = "st_mode st_ino st_nlink st_uid st_gid st_size st_blocks st_atime_ns st_mtime_ns st_ctime_ns st_rdev".split()


@pytest.fixture(name="m")
def mounted_with_messages(maildex):
    maildex.maildir("u", new=1, cur=2)
    maildex.msg = "u/cur/" + sorted(os.listdir(maildex.low("u/cur")))[0]
    return maildex.fs_start()


def equal(m, *paths):
    for path in paths:
        above, below = os.lstat(m.up(path)), os.lstat(m.low(path))
        for f in FIELDS:
            assert getattr(above, f) == getattr(below, f), (path, f)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def test_stat_is_the_lower_one(m):
    os.symlink("target", m.low("u/link"))
    os.mkfifo(m.low("u/fifo"))
    m.proven("u/cur")
    m.proven("u/new")
    equal(m, m.msg, "u", "u/cur", "u/new", "u/tmp", "u/link", "u/fifo", "")


@pytest.mark.parametrize("where", ["u/tmp/f", "u/cur/f", "u/dovecot-uidlist"])
def test_attributes_are_set(m, where):
    touch(m.up(where), b"0123456789")
    equal(m, where)
    os.chmod(m.up(where), 0o4751)
    equal(m, where)
    os.chown(m.up(where), A, TEAM)
    equal(m, where)
    os.utime(m.up(where), ns=(1234567890123456789, 987654321987654321))
    assert os.stat(m.up(where)).st_mtime_ns == 987654321987654321
    equal(m, where)
    os.truncate(m.up(where), 4)
    equal(m, where)
    with open(m.up(where), "r+b") as f:
        os.fchmod(f.fileno(), 0o600)
        os.ftruncate(f.fileno(), 7)
        os.utime(f.fileno(), ns=(5, 6))
        assert os.fstat(f.fileno()).st_mtime_ns == 6
    equal(m, where)
    assert read(m.low(where)) == b"0123\0\0\0"
    os.utime(m.up(where))
    equal(m, where)


def test_attributes_changed_below(m):
    """Files other than messages are asked for at each stat; messages are looked up again within `revalidate`."""
    for where in ("u/dovecot-uidlist", "u/tmp/f"):
        touch(m.low(where))
        equal(m, where)
        os.chmod(m.low(where), 0o640)
        with open(m.low(where), "wb") as f:
            f.write(b"longer")
        equal(m, where)
        assert read(m.up(where)) == b"longer"
        os.unlink(m.low(where))
        touch(m.low(where), b"another file")
        assert read(m.up(where)) == b"another file"
    equal(m, m.msg)
    os.chmod(m.low(m.msg), 0o640)
    eventually("the message's mode", lambda: os.stat(m.up(m.msg)).st_mode == os.stat(m.low(m.msg)).st_mode)


@pytest.mark.parametrize("where", ["u/cur/f", "u/tmp/f", "u/cur", "u"])
def test_extended_attributes(m, where):
    if where.endswith("f"):
        touch(m.up(where))
    path, low = m.up(where), m.low(where)
    refused(ENODATA, os.getxattr, path, "user.none")
    os.setxattr(path, "user.a", b"value")
    os.setxattr(path, "user.b", b"x" * 2000)
    assert os.getxattr(low, "user.a") == b"value" and os.getxattr(path, "user.b") == b"x" * 2000
    assert sorted(os.listxattr(path)) == sorted(os.listxattr(low)) == ["user.a", "user.b"]
    refused(EEXIST, os.setxattr, path, "user.a", b"", os.XATTR_CREATE)
    refused(ENODATA, os.setxattr, path, "user.c", b"", os.XATTR_REPLACE)
    os.removexattr(path, "user.a")
    refused(ENODATA, os.getxattr, low, "user.a")
    with opened(path, os.O_RDONLY) as fd:
        assert os.listxattr(fd) == ["user.b"]


def test_statvfs(m):
    above, below = os.statvfs(m.up("u")), os.statvfs(m.low("u"))
    for f in ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax"):
        assert getattr(above, f) == getattr(below, f)


def test_two_appending_writers(m):
    paths = [m.up("u/log"), m.up("u/log"), m.low("u/log")]
    fds = [os.open(p, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for p in paths]
    for i in range(300):
        os.write(fds[i % 3], b"line %04d\n" % i)
    for fd in fds:
        os.close(fd)
    assert read(m.low("u/log")) == read(m.up("u/log")) == b"".join(b"line %04d\n" % i for i in range(300))


def test_exclusive_create_has_one_winner(m):
    start, won = threading.Barrier(8), []

    def create():
        start.wait()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(m.up("u/cur/lock"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won.append(1)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert won == [1]
    touch(m.low("u/cur/below"))
    refused(EEXIST, os.open, m.up("u/cur/below"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)


@pytest.mark.parametrize("by", ["up", "low"])
def test_open_file_after_unlink(m, by):
    """Read, write, fstat, ftruncate and the like of a file whose name is gone."""
    path = "u/cur/gone"
    with open(m.up(path), "x+b") as f:
        f.write(b"still here")
        f.flush()
        os.unlink(getattr(m, by)(path))
        assert os.pread(f.fileno(), 100, 0) == b"still here"
        assert os.fstat(f.fileno()).st_nlink == 0 or by == "low"  # a message's attributes are kept for a while
        assert os.fstat(f.fileno()).st_size == 10
        os.ftruncate(f.fileno(), 5)
        os.fchmod(f.fileno(), 0o640)
        f.seek(5)
        f.write(b"!")
        f.flush()
        assert os.fstat(f.fileno()).st_size == 6 and os.pread(f.fileno(), 100, 0) == b"still!"
        os.fsync(f.fileno())
        with open(f"/proc/self/fd/{f.fileno()}", "rb") as again:
            assert again.read() == b"still!"
    eventually("the name to be gone", lambda: not os.path.exists(m.up(path)))


def test_renamed_while_open(m):
    with open(m.up(m.msg), "rb") as f:
        os.rename(m.up(m.msg), m.up("u/cur/renamed"))
        assert f.read() == read(m.low("u/cur/renamed"))
        assert os.fstat(f.fileno()).st_ino == os.stat(m.low("u/cur/renamed")).st_ino
        os.chmod(m.up("u/cur/renamed"), 0o640)
        assert os.fstat(f.fileno()).st_mode & 0o777 == 0o640


def test_replaced_below_while_open(m):
    """A handle stays on the file that it opened."""
    touch(m.low("u/uidlist"), b"old")
    with open(m.up("u/uidlist"), "rb") as f:
        touch(m.low("u/uidlist.lock"), b"newer")
        os.rename(m.low("u/uidlist.lock"), m.low("u/uidlist"))
        assert read(m.up("u/uidlist")) == b"newer"
        assert f.read() == b"old" and os.fstat(f.fileno()).st_size == 3


def test_mapped_files(m):
    data = os.urandom(100000)
    touch(m.low("u/cur/mapped"), data)
    with opened(m.up("u/cur/mapped"), os.O_RDWR) as fd:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
            assert view[:] == data
        with mmap.mmap(fd, 0) as view:
            view[5000:5005] = b"HELLO"
            view.flush()
        os.fsync(fd)
    assert read(m.low("u/cur/mapped"))[4999:5006] == data[4999:5000] + b"HELLO" + data[5005:5006]


def test_holes_and_copies(m):
    with opened(m.up("u/tmp/sparse"), os.O_RDWR | os.O_CREAT) as fd:
        os.posix_fallocate(fd, 0, 65536)
        assert os.fstat(fd).st_size == 65536 == os.stat(m.low("u/tmp/sparse")).st_size
        os.pwrite(fd, b"data", 10 * 2**20)
        low = os.open(m.low("u/tmp/sparse"), os.O_RDONLY)
        for off, whence in ((0, os.SEEK_HOLE), (70000, os.SEEK_DATA), (10 * 2**20, os.SEEK_HOLE)):
            assert os.lseek(fd, off, whence) == os.lseek(low, off, whence)
        os.close(low)
        with opened(m.up("u/tmp/copy"), os.O_RDWR | os.O_CREAT) as to:
            copied = 0
            while copied < 4:
                copied += os.copy_file_range(fd, to, 4 - copied, 10 * 2**20 + copied, copied)
    assert read(m.low("u/tmp/copy")) == b"data"


def test_sync(m):
    for path, flags in ((m.msg, os.O_RDWR), ("u/cur", os.O_RDONLY), ("u/tmp", os.O_RDONLY), ("u", os.O_RDONLY)):
        with opened(m.up(path), flags) as fd:
            os.fsync(fd)
            os.fdatasync(fd)


def test_links_and_nodes(m):
    os.symlink("x" * 4000, m.up("u/long"))
    assert os.readlink(m.up("u/long")) == os.readlink(m.low("u/long")) == "x" * 4000
    os.symlink("cur", m.up("u/tocur"))
    assert ls(m.up("u/tocur")) == ls(m.low("u/cur"))
    os.mkfifo(m.up("u/fifo"), 0o640)
    os.mknod(m.up("u/null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    equal(m, "u/long", "u/tocur", "u/fifo", "u/null")
    reader = os.open(m.up("u/fifo"), os.O_RDONLY | os.O_NONBLOCK)
    with opened(m.up("u/fifo"), os.O_WRONLY) as writer:
        os.write(writer, b"through the kernel")
    assert os.read(reader, 100) == b"through the kernel"
    os.close(reader)


@pytest.fixture(name="boxes")
def private_mailboxes(maildex):
    """Three users, 0700 each; a team folder 0770 of a group."""
    for uid in (A, B, C):
        maildex.maildir(f"box{uid}", new=1, cur=2, uid=uid)
    maildex.maildir("team", cur=3, uid=A)
    for sub in ("", "new", "cur", "tmp"):
        os.chown(maildex.low("team", sub), A, TEAM)
        os.chmod(maildex.low("team", sub), 0o2770)
    return maildex.fs_start()


def test_each_user_sees_their_own(boxes):
    for uid in (A, B, C):
        own, others = boxes.up(f"box{uid}"), [boxes.up(f"box{u}") for u in (A, B, C) if u != uid]
        assert as_user(uid, lambda d=own: len(os.listdir(d + "/cur"))) == 2
        assert as_user(uid, lambda d=own: read(d + "/new/" + os.listdir(d + "/new")[0])).startswith(b"Subject")
        for other in others:
            for what in (os.listdir, os.stat):
                refused(EACCES, as_user, uid, lambda d=other, w=what: w(d + "/cur"))
            refused(EACCES, as_user, uid, lambda d=other: touch(d + "/tmp/x"))
            refused(EACCES, as_user, uid, lambda d=other: os.rename(d + "/cur", d + "/x"))


def test_listing_in_memory_is_shown_to_nobody_else(boxes):
    """The owner's listing is in memory; the directory lets others through, but not list."""
    os.chmod(boxes.low(f"box{A}"), 0o711)
    cur = boxes.up(f"box{A}/cur")
    assert len(as_user(A, lambda: os.listdir(cur))) == 2
    os.chmod(boxes.low(f"box{A}/cur"), 0o711)
    assert len(as_user(A, lambda: os.listdir(cur))) == 2
    eventually("the mode to be seen", lambda: os.stat(cur).st_mode & 0o777 == 0o711)
    refused(EACCES, as_user, B, lambda: os.listdir(cur))
    refused(EACCES, as_user, B, lambda: touch(cur + "/x"))
    assert len(os.listdir(cur)) == 2  # root


@pytest.mark.parametrize("tree", ["low", "up"])
def test_who_has_a_file_open_may_become_another_user(boxes, tree):
    """As Dovecot's lmtp does with one message for two: the file stays open, the folder is closed to the second one."""
    path = touch(boxes.low(f"box{A}/dovecot.index.cache"), b"12345")
    os.chown(path, B, B)
    os.setxattr(path, "user.x", b"1")
    path = getattr(boxes, tree)(f"box{A}/dovecot.index.cache")
    refused(EACCES, as_user, B, lambda: os.stat(path))
    with opened(path, os.O_RDWR) as fd:
        assert as_user(B, lambda: os.fstat(fd).st_size) == 5
        assert as_user(C, lambda: os.fstat(fd).st_uid) == B
        as_user(B, lambda: os.fchmod(fd, 0o640))
        as_user(B, lambda: os.utime(fd, ns=(10**9, 2 * 10**9)))
        assert as_user(B, lambda: os.getxattr(fd, "user.x")) == b"1"
        refused(EPERM, as_user, C, lambda: os.fchmod(fd, 0o600))
        refused(EACCES, as_user, B, lambda: os.stat(path))
        assert (os.fstat(fd).st_mode & 0o777, os.fstat(fd).st_mtime_ns) == (0o640, 2 * 10**9)


def test_new_files_belong_to_the_caller(boxes):
    box = boxes.up(f"box{B}")

    def work():
        os.umask(0o027)
        touch(box + "/tmp/f")
        os.mkdir(box + "/.Sub", 0o770)
        os.symlink("x", box + "/link")
        os.mkfifo(box + "/fifo")
        os.link(box + "/tmp/f", box + "/new/f")
        os.rename(box + "/new/f", box + "/cur/f:2,")

    as_user(B, work, gid=C)
    for name in ("tmp/f", ".Sub", "link", "fifo", "cur/f:2,"):
        st = os.lstat(boxes.low(f"box{B}", name))
        assert (st.st_uid, st.st_gid) == (B, C), name
    assert os.stat(boxes.low(f"box{B}/tmp/f")).st_mode & 0o777 == 0o640  # touch() asks for 0666
    assert os.stat(boxes.low(f"box{B}/.Sub")).st_mode & 0o777 == 0o750


def test_access_by_supplementary_group_only(boxes):
    team = boxes.up("team")
    refused(EACCES, as_user, C, lambda: os.listdir(team + "/cur"))
    assert as_user(C, lambda: len(os.listdir(team + "/cur")), groups=[TEAM]) == 3

    def work():
        touch(team + "/tmp/c")
        os.rename(team + "/tmp/c", team + "/new/c")
        os.mkdir(team + "/tmp/d")
        return os.listdir(team + "/new")

    assert as_user(C, work, groups=[5, TEAM, 6]) == ["c"]
    st = os.stat(boxes.low("team/new/c"))
    assert (st.st_uid, st.st_gid) == (C, TEAM)  # setgid directory
    assert os.stat(boxes.low("team/tmp/d")).st_mode & stat.S_ISGID
    refused(EACCES, as_user, B, lambda: os.unlink(team + "/new/c"))


def test_sticky_directory(boxes):
    os.mkdir(boxes.low("shared"))
    os.chmod(boxes.low("shared"), 0o1777)
    as_user(A, lambda: touch(boxes.up("shared/a")))
    refused(EPERM, as_user, B, lambda: os.unlink(boxes.up("shared/a")))
    refused(EPERM, as_user, B, lambda: os.rename(boxes.up("shared/a"), boxes.up("shared/b")))
    as_user(A, lambda: os.unlink(boxes.up("shared/a")))


def test_what_only_owners_and_root_may(boxes):
    path = boxes.up(f"box{A}/tmp/f")
    os.chmod(boxes.low(f"box{A}"), 0o755)
    os.chmod(boxes.low(f"box{A}/tmp"), 0o755)
    as_user(A, lambda: touch(path))
    refused(EPERM, as_user, A, lambda: os.chown(path, B, B))
    for what in (lambda: os.chmod(path, 0o777), lambda: os.utime(path, (1, 1)), lambda: os.setxattr(path, "user.x", b"")):
        refused((EPERM, EACCES), as_user, B, what)
    refused(EACCES, as_user, B, lambda: os.truncate(path, 0))
    as_user(A, lambda: os.chmod(path, 0o4755))

    def write():
        with open(path, "ab") as f:
            f.write(b"x")

    as_user(A, write)
    assert not os.stat(boxes.low(f"box{A}/tmp/f")).st_mode & stat.S_ISUID  # as on any filesystem
    assert as_user(A, lambda: os.access(path, os.W_OK)) and not as_user(B, lambda: os.access(path, os.W_OK))


def digest(path, size):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(size):
            h.update(piece)
    return h.hexdigest()


def test_big_file_and_concurrent_readers(m):
    with open(m.up("u/tmp/big"), "xb") as f:
        for i in range(70):
            f.write(bytes([i]) * 2**20)
    os.rename(m.up("u/tmp/big"), m.up("u/cur/big"))
    want, got = digest(m.low("u/cur/big"), 2**20), []
    threads = [
        threading.Thread(target=lambda s=s: got.append(digest(m.up("u/cur/big"), s))) for s in (4096, 2**17, 2**20, 99999)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [want] * 4
    equal(m, "u/cur/big")


def test_stale_names_are_found_again(m):
    """A file replaced below under the same name: the kernel walks the path once more."""
    for i in range(30):
        path = "u/tmp/turn"
        if os.path.exists(m.low(path)):
            os.unlink(m.low(path))
        touch(m.low(path), b"%d" % i)
        assert read(m.up(path)) == b"%d" % i
    os.unlink(m.low(path))
    refused((ENOENT, ESTALE), read, m.up(path))

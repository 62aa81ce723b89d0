# SPDX-License-Identifier: GPL-2.0-or-later
"""A real maildexfs over a tree of its own (with maildexd where a test starts it), and words that the suites share."""

import contextlib
import ctypes
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import traceback
from errno import ECONNABORTED, EIO, ENOTCONN, ESTALE, EXDEV

from daemon import BUILD, WAIT_S, Client, Daemon, Reader, SERVE, STATUS, message, put_str, until

# What a caller meets when maildexfs dies. EXDEV: one path was looked up in the mount, the other in the plain tree.
CUT_OFF = (ENOTCONN, ECONNABORTED, EIO, ESTALE, EXDEV)
FS = os.path.abspath(os.path.join(BUILD, "maildexfs"))
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
DT_FIFO, DT_DIR, DT_REG, DT_LNK = 1, 4, 8, 10
SERVE_INDEX, SERVE_LOWER, SERVE_COMPARE = 0, 1, 2
REPORTS = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:")

libc = ctypes.CDLL(None, use_errno=True)
eventually = until


def mounts_below(path):
    """Mount points at or below path, the last one mounted first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        points = [line.split(" ")[4] for line in f]
    return [p for p in reversed(points) if p == path or p.startswith(path + "/")]


class Maildex(Daemon):
    """One host: maildexfs on mnt over root; start() starts maildexd beside it."""

    def __init__(self, **conf):
        super().__init__(**conf)
        self.mnt = os.path.join(self.dir, "mnt")
        self.fslog = os.path.join(self.dir, "fslog")
        self.conf["mount"] = self.mnt
        self.fs = None
        os.mkdir(self.mnt, 0o755)
        os.mkdir(os.path.join(self.dir, "run"), 0o755)

    def __exit__(self, *args):
        try:
            self.fs_end()
        finally:
            for point in mounts_below(self.dir):
                subprocess.run(["umount", "-l", point], check=False)
            left = mounts_below(self.dir)
            if os.path.exists(self.fslog):
                print(self.fs_logged())
            super().__exit__(*args)
            assert not left

    # -- maildexfs

    def fs_command(self, *args, **options):
        conf = self.command()[2]
        return [FS, "-c", conf, *(x for k, v in options.items() for x in ("-o", f"{k}={v}")), *args]

    def fs_start(self, *args, **options):
        """Starts it in the foreground and waits until it says that the mount answers."""
        path = os.path.join(self.dir, "fsnotify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(path)
            s.settimeout(0.1)
            with open(self.fslog, "ab") as log:
                self.fs = subprocess.Popen(
                    self.fs_command("-f", *args, **options), stderr=log, env={**os.environ, "NOTIFY_SOCKET": path}
                )
            eventually("maildexfs to be ready", lambda: self._fs_said_ready(s))
        os.unlink(path)
        return self

    def _fs_said_ready(self, s):
        try:
            return b"READY=1" in s.recv(4096)
        except TimeoutError:
            assert self.fs.poll() is None, self.fs_logged()
            return False

    def fs_stop(self):
        """An ordinary end, by umount."""
        subprocess.run(["umount", self.conf["mount"]], check=True, timeout=WAIT_S)
        self._fs_ended()

    def fs_kill(self):
        """A crash; its dead mount is left."""
        fs, self.fs = self.fs, None
        fs.kill()
        fs.wait()

    def fs_restart(self, **options):
        self.fs_stop()
        self.fs_start(**options)

    def fs_end(self):
        """Whatever state it is in."""
        if self.fs:
            done = subprocess.run(["umount", self.conf["mount"]], check=False, timeout=WAIT_S, stderr=subprocess.PIPE)
            if done.returncode:  # a test that failed holds files open
                subprocess.run(["umount", "-l", self.conf["mount"]], check=False, timeout=WAIT_S)
                self.fs.send_signal(signal.SIGTERM)
            self._fs_ended()
        said = REPORTS.search(self.fs_logged() + (self.logged() if os.path.exists(self.log) else ""))
        assert not said, self.fs_logged()

    def _fs_ended(self):
        fs, self.fs = self.fs, None
        try:
            code = fs.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            fs.kill()
            fs.wait()
            raise
        assert code == 0, f"exit code {code}: {self.fs_logged()}"

    def fs_refused(self, *args, **options):
        """Runs it until it ends by itself; returns (exit code, what it said)."""
        done = subprocess.run(
            self.fs_command("-f", *args, **options), stderr=subprocess.PIPE, timeout=WAIT_S, check=False
        )
        said = done.stderr.decode()
        assert not REPORTS.search(said), said
        return done.returncode, said

    def fs_logged(self):
        if not os.path.exists(self.fslog):
            return ""
        with open(self.fslog, encoding="utf-8", errors="replace") as f:
            return f.read()

    # -- what it tells

    def fs_client(self):
        return Client(self.socket + ".fs")

    def fs_status(self):
        with self.fs_client() as c:
            return c.status()

    def count(self, name):
        return int(self.fs_status()["maildexfs." + name])

    @contextlib.contextmanager
    def counting(self, *names):
        """Yields a dict that holds, after the block, by how much each counter grew in it."""
        grown, before = {}, self.fs_status()
        yield grown
        after = self.fs_status()
        for n in names:
            grown[n] = int(after["maildexfs." + n]) - int(before["maildexfs." + n])

    def fs_within(self, *numbers):
        """How many threads of maildexfs are within one of these system calls (numbers as text, as proc_pid_syscall(5) has them)?"""
        found = 0
        for task in os.listdir(f"/proc/{self.fs.pid}/task"):
            with open(f"/proc/{self.fs.pid}/task/{task}/syscall", encoding="ascii") as f:
                found += f.read().split()[0] in numbers
        return found

    def serve(self, mode=None, *mailboxes):
        """Asks, or sets; returns {mailbox: mode}, "*" for the whole mount."""
        with self.fs_client() as c:
            c.send(
                message(
                    SERVE,
                    bytes([mode is not None, mode or 0]),
                    struct.pack("<I", len(mailboxes)),
                    *map(put_str, mailboxes),
                )
            )
            text = Reader(c.expect(STATUS)[2:]).str()
        return dict(line.rsplit(" ", 1) for line in text.splitlines())

    # -- its two trees

    def low(self, *parts):
        return os.path.join(self.root, *parts)

    def up(self, *parts):
        return os.path.join(self.conf["mount"], *parts)

    def same(self, *parts):
        """The very next listing through the mount is the lower one."""
        above, below = ls(self.up(*parts)), ls(self.low(*parts))
        assert above == below, f"missing: {below - above}, wrong: {above - below}"
        return above

    def proven(self, *parts):
        """Lists until the listing is known to be right: the server's own mtime is shown again."""
        own = os.stat(self.low(*parts)).st_mtime_ns
        eventually("a proven listing", lambda: ls(self.up(*parts)) is not None and os.stat(self.up(*parts)).st_mtime_ns == own)

    def fill(self, folder, half, n, first=0):
        """n messages in the lower tree; returns their names."""
        names = [f"16{first + i:08}.M{i}P1.host:2,S" for i in range(n)]
        for name in names:
            with open(self.low(folder, half, name), "xb"):
                pass
        return names


def ls(path):
    """The names, as bytes; none twice."""
    names = os.listdir(os.fsencode(path))
    assert len(names) == len(set(names)), f"listed twice: {sorted(n for n in set(names) if names.count(n) > 1)}"
    return set(names)


def touch(path, data=b""):
    with open(path, "xb") as f:
        f.write(data)
    return path


def base(name):
    """The message that a name is of."""
    return name.split(b":")[0]


def getdents(fd, size=32768):
    """One call of getdents64(2): [(inode, cookie, type, name)]."""
    buf = ctypes.create_string_buffer(size)
    n = libc.getdents64(fd, buf, ctypes.c_size_t(size))
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    out, at = [], 0
    while at < n:
        ino, off, reclen, kind = struct.unpack_from("<QqHB", buf.raw, at)
        out.append((ino, off, kind, buf.raw[at + 19 : at + reclen].split(b"\0")[0]))
        at += reclen
    return out


def getdents_all(fd, size=32768):
    out = []
    while True:
        piece = getdents(fd, size)
        if not piece:
            return out
        out += piece


@contextlib.contextmanager
def opened(path, flags=os.O_RDONLY | os.O_DIRECTORY):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def rename2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), old)


@contextlib.contextmanager
def acting_as(uid):
    """What this thread does with files in this block it does as that user and group: a mail's owner may do on NFS what
    root may not (root_squash)."""
    before = libc.setfsgid(uid), libc.setfsuid(uid)
    try:
        yield
    finally:
        libc.setfsuid(before[1])
        libc.setfsgid(before[0])


def as_user(uid, what, gid=None, groups=()):
    """Runs what() in a child that is that user; returns its value or raises its OSError."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            answer = ("value", what())
        except OSError as e:
            answer = ("errno", e.errno)
        except BaseException:  # pylint: disable=broad-except
            answer = ("error", traceback.format_exc())
        os.write(w, pickle.dumps(answer))
        os._exit(0)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        kind, value = pickle.loads(f.read())
    os.waitpid(pid, 0)
    if kind == "errno":
        raise OSError(value, os.strerror(value))
    assert kind == "value", value
    return value


def refused(errno, what, *args, **kw):
    """what(*args) fails with that errno (or one of them)."""
    try:
        what(*args, **kw)
    except OSError as e:
        assert e.errno in (errno if isinstance(errno, tuple) else (errno,)), e
        return
    raise AssertionError("was not refused")

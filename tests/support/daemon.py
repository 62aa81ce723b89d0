# SPDX-License-Identifier: GPL-2.0-or-later
"""A real maildexd over a tree of its own, and a client that speaks its socket protocol (lib/mail/wire.h)."""

import array
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import time

BUILD = os.environ.get("MAILDEX_BUILD", "build/gcc")
LOWER = os.environ.get("MAILDEX_LOWER")  # where trees are; unset: beside all else of a test
EXPORT = os.environ.get("MAILDEX_EXPORT", LOWER)  # the same, where root may do all: an NFS server's own side of it
# Until something is called broken: far beyond what it takes, also under sanitizers; MAILDEX_SLOW: on a machine that is so
# many times slower.
WAIT_S = 60 * int(os.environ.get("MAILDEX_SLOW", "1"))

(HELLO, EVENT, NOTIFY, SCAN, STATUS, REBUILD, SERVE, OK, ERROR, FEED, PROGRESS, FAILED, END) = range(1, 14)
ROLE_NOTIFY, ROLE_FS, ROLE_CTL = 1, 2, 3
ADD, REMOVE, RENAME, LOOK, NEED = range(1, 6)
NEW, CUR = 0, 1
DT_REG = 8


def until(what, condition):
    """Waits for something that another process does by itself."""
    end = time.monotonic() + WAIT_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {WAIT_S} s for: {what}"
        time.sleep(0.01)


def stand_still(process):
    """SIGSTOP; it takes a moment until it has reached all threads."""

    def stopped(thread):
        with open(f"/proc/{process.pid}/task/{thread}/stat", encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "T"

    process.send_signal(signal.SIGSTOP)
    until("all threads to stand still", lambda: all(map(stopped, os.listdir(f"/proc/{process.pid}/task"))))


@contextlib.contextmanager
def standing_still(process):
    try:
        stand_still(process)
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def logs(directory):
    """What a server that keeps its output and its log there has said."""
    text = ""
    for name in ("output", "log"):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                text += f.read()
    return text


def put_str(s):
    data = os.fsencode(s)
    return struct.pack("<I", len(data)) + data


class Stamp(tuple):
    """dev, ino, ctime_ns, mtime_ns, size, sized"""

    def pack(self):
        return struct.pack("<QQqqQB", *self)

    def later(self, ns=1):
        return Stamp((*self[:2], self[2] + ns, *self[3:]))


def message(kind, *parts, version=1):
    return bytes([version, kind]) + b"".join(parts)


def change(kind, name="", old="", ino=0, dtype=DT_REG):
    return struct.pack("<BBQ", kind, dtype, ino) + put_str(name) + put_str(old)


def event(folder, half, changes, window=None, epoch=0, sequence=0, version=1):
    body = put_str(folder) + bytes([half, 1 if window else 0])
    if window:
        body += window[0].pack() + window[1].pack()
    body += put_str("") + struct.pack("<QQI", epoch, sequence, len(changes)) + b"".join(changes)
    return bytes([version]) + struct.pack("<I", len(body)) + body


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def num(self, fmt):
        value = struct.unpack_from("<" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return value

    def str(self):
        n = self.num("I")
        value = self.data[self.at : self.at + n]
        self.at += n
        return os.fsdecode(value)


class Feed:
    """A FEED message taken apart: folder, half, changes as (kind, name, old, ino)."""

    def __init__(self, data):
        r = Reader(data)
        r.at = 2 + 1 + 4
        self.folder, self.half = r.str(), r.num("B")
        self.windowed = r.num("B")
        if self.windowed:
            r.at += 2 * struct.calcsize("<QQqqQB")
        r.str()
        self.epoch, self.sequence = r.num("Q"), r.num("Q")
        self.changes = []
        for _ in range(r.num("I")):
            kind, _, ino = r.num("B"), r.num("B"), r.num("Q")
            self.changes.append((kind, r.str(), r.str(), ino))


class Client:
    def __init__(self, path, role=ROLE_CTL, name="test", hello=True):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.connect(path)  # waits while too many others do
        self.sock.settimeout(WAIT_S)
        self.feeds = []  # what came while something else was waited for
        if hello:
            self.send(message(HELLO, bytes([role]), put_str(name)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def recv(self):
        """A message, or b"" at the end of the connection."""
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            return b""

    def expect(self, kind):
        """The next message, which must be of that type; FEED may come in between at any time."""
        if kind == FEED and self.feeds:
            return self.feeds.pop(0)
        data = self.recv()
        while data and data[1] == FEED and kind != FEED:
            self.feeds.append(data)
            data = self.recv()
        assert data, "the connection ended"
        if data[1] == ERROR and kind != ERROR:
            raise AssertionError("ERROR: " + Reader(data[2:]).str())
        assert data[1] == kind, data
        return data

    def notify(self, path):
        self.send(message(NOTIFY, put_str(path)))
        self.expect(OK)

    def error(self):
        return Reader(self.expect(ERROR)[2:]).str()

    def status(self):
        self.send(message(STATUS))
        text = Reader(self.expect(STATUS)[2:]).str()
        return dict(line.split(" ", 1) for line in text.splitlines())

    def feed(self):
        return Feed(self.expect(FEED))

    def event(self, *args, **kw):
        self.send(message(EVENT, event(*args, **kw)))

    def scan(self, folder, half, stamp, names, server_now_ns=None):
        """Hands a listing over, as maildexfs does. names: {name: inode}."""
        records = [struct.pack("<QBB", ino, DT_REG, len(os.fsencode(n))) + os.fsencode(n) for n, ino in names.items()]
        data = b"".join(records)
        now = server_now_ns if server_now_ns is not None else stamp[2] + 10**10
        total = sum(xxh3_listing(n, ino) for n, ino in names.items()) % 2**64
        fd = os.memfd_create("listing")
        os.write(fd, data)
        head = message(
            SCAN,
            put_str(folder),
            bytes([half]),
            struct.pack("<I", 1),
            stamp.pack(),
            stamp.pack(),
            struct.pack("<qBBB", now, 0, 0, 0),
            struct.pack("<QQQ", len(names), total, len(data)),
        )
        self.sock.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)

    def rebuild(self, *paths):
        """Returns (exit code, text, last progress, failed folders)."""
        self.send(message(REBUILD, bytes([not paths]), struct.pack("<I", len(paths)), *map(put_str, paths)))
        progress, failed = None, []
        while True:
            data = self.recv()
            assert data, "the connection ended"
            r = Reader(data[2:])
            if data[1] == PROGRESS:
                progress = dict(
                    zip(
                        ("done", "known", "walked", "messages", "failed", "skipped"),
                        struct.unpack("<QQBQQQ", data[2:]),
                    )
                )
            elif data[1] == FAILED:
                failed.append((r.str(), r.str()))
            elif data[1] == END:
                return r.num("B"), r.str(), progress, failed
            elif data[1] == ERROR:
                return -1, r.str(), progress, failed
            else:
                assert data[1] == FEED, data


_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
_xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]


def xxh3_listing(name, ino):
    data = os.fsencode(name)
    return _xxhash.XXH3_64bits_withSeed(data, len(data), ino)


def put_message(maildir, half, name):
    path = os.path.join(maildir, half, name)
    with open(path, "wb") as f:
        f.write(b"Subject: x\n\nx\n")
    return os.stat(path).st_ino


def make_maildir(path, new=0, cur=0, uid=None):
    """By root, for that owner."""
    for sub in ("", "new", "cur", "tmp"):
        os.makedirs(os.path.join(path, sub), mode=0o700, exist_ok=True)
    for i in range(new):
        put_message(path, "new", f"17000{i:05}.M1P1.host")
    for i in range(cur):
        put_message(path, "cur", f"16000{i:05}.M1P1.host:2,S")
    if uid is not None:
        for top, dirs, files in os.walk(path):
            for n in ["", *dirs, *files]:
                os.chown(os.path.join(top, n), uid, uid)


class Daemon:
    """One maildexd with its own root, index and socket below a temporary folder."""

    def __init__(self, user="root", **conf):
        self.dir = tempfile.mkdtemp(prefix="maildexd-")
        os.chmod(self.dir, 0o755)
        self.root, self.made = self._root()
        self.index = os.path.join(self.dir, "index", "index.sqlite")
        self.socket = os.path.join(self.dir, "run", "sock")
        self.log = os.path.join(self.dir, "log")
        self.conf = {"root": self.root, "index": self.index, "socket": self.socket, "user": user, "log": "debug"}
        self.conf.update(conf)
        self.process = None

    def _root(self):
        """A folder of our own on the filesystem to be tested; and the same where root may make, read and remove all."""
        if not LOWER:
            root = os.path.join(self.dir, "mail")
            os.mkdir(root, 0o755)
            return root, root
        made = tempfile.mkdtemp(prefix="mail-", dir=EXPORT)
        os.chmod(made, 0o755)
        return os.path.join(LOWER, os.path.basename(made)), made

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            if self.process:
                self.stop()
        finally:
            if os.path.exists(self.log):
                print(self.logged())  # shown if the test failed
            shutil.rmtree(self.dir)
            shutil.rmtree(self.made, ignore_errors=not LOWER)

    # -- the process

    def command(self, *args):
        path = os.path.join(self.dir, "maildex.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write("[maildex]\n" + "".join(f"{k} = {v}\n" for k, v in self.conf.items()))
        return [os.path.join(BUILD, "maildexd"), "-c", path, *args]

    def environment(self):
        env = dict(os.environ)
        if self.conf["user"] != "root":
            # It gives up the right to be traced, which the leak checker needs.
            env["ASAN_OPTIONS"] = "detect_leaks=0"
        return env

    def start(self):
        """Starts it and waits until it says that it is ready."""
        notify = os.path.join(self.dir, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(notify)
            os.chmod(notify, 0o777)
            s.settimeout(WAIT_S)
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    self.command("-f"), stderr=log, env={**self.environment(), "NOTIFY_SOCKET": notify}
                )
            while b"READY=1" not in self._ready(s):
                pass
        os.unlink(notify)
        return self

    def _ready(self, s):
        end = time.monotonic() + WAIT_S
        s.settimeout(0.1)
        while time.monotonic() < end:
            try:
                return s.recv(4096)
            except TimeoutError:
                assert self.process.poll() is None, self.logged()
        raise AssertionError("not ready: " + self.logged())

    def stop(self):
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        code = process.wait(WAIT_S)
        assert code == 0, f"exit code {code}: {self.logged()}"

    def kill(self):
        process, self.process = self.process, None
        process.kill()
        process.wait()

    def refused(self, *args):
        """Runs it until it ends by itself; returns (exit code, what it said)."""
        done = subprocess.run(
            self.command("-f", *args), stderr=subprocess.PIPE, timeout=WAIT_S, env=self.environment(), check=False
        )
        return done.returncode, done.stderr.decode()

    def logged(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    # -- its tree

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def maildir(self, folder, new=0, cur=0, uid=None):
        make_maildir(os.path.join(self.made, folder), new, cur, uid)

    def deliver(self, folder, name, half="new"):
        return put_message(self.path(folder), half, name)

    def stamp(self, folder, half):
        st = os.stat(self.path(folder, ("new", "cur")[half]))
        return Stamp((self.device(folder), st.st_ino, st.st_ctime_ns, st.st_mtime_ns, st.st_size, 0))

    def device(self, folder):
        """The number that maildexd gives the tree's filesystem, from a row that it scanned."""
        known = self.query("SELECT known_dev FROM half WHERE known_dev != 0 LIMIT 1")
        assert known, f"scan something before asking for stamps of {folder}"
        return known[0][0] % 2**64

    # -- what it holds

    def client(self, *args, **kw):
        return Client(self.socket, *args, **kw)

    def query(self, sql, *args):
        db = sqlite3.connect(f"file:{self.index}?mode=ro", uri=True)
        try:
            return db.execute(sql, args).fetchall()
        finally:
            db.close()

    def names(self, folder, half):
        rows = self.query(
            "SELECT name, ino FROM message WHERE half = (SELECT id FROM half WHERE folder = ? AND half = ?)",
            os.fsencode(folder),
            half,
        )
        return {os.fsdecode(n): ino for n, ino in rows}

    def row(self, folder, half):
        """need, trust, unsettled, count, scanned_ns; None if it isn't held."""
        rows = self.query(
            "SELECT need, trust, unsettled, count, scanned_ns FROM half WHERE folder = ? AND half = ?",
            os.fsencode(folder),
            half,
        )
        return dict(zip(("need", "trust", "unsettled", "count", "scanned_ns"), rows[0])) if rows else None

    def disk(self, folder, half):
        sub = ("new", "cur")[half]
        return {e.name: e.inode() for e in os.scandir(self.path(folder, sub))}

    def idle(self, client):
        """Waits until all that this client has sent is applied; returns the status."""

        def applied():
            s = client.status()
            done = sum(int(s["events." + k]) for k in ("applied", "ignored"))
            return s if s["queue.changes"] == "0" and done >= int(s["events.received"]) else None

        return until("the queue to be empty", applied)

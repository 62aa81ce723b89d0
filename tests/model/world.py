# SPDX-License-Identifier: GPL-2.0-or-later
"""A world of the model test: one disk (the NFS server's), two or three hosts with a mirror of it each (their NFS client), an
index, a maildexd and a maildexfs; and the primitives of all that happens in it. Each primitive tells the oracle's records
(record.py) what it did, where and when: all that the oracle excuses comes from there."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from daemon import ROLE_FS, WAIT_S, Client, make_maildir
from faultfs import Faulty
from host import acting_as, base, eventually
from record import Nothing, Records, Stamps, message_of

OWNER = 2345
HALVES = ("new", "cur")
FOLDERS = ("u", "u/.A", "u/.B", "u/.C")


class Wrong(AssertionError):
    """What the oracle says; rule: its first word."""


def draw(seed):
    """What a world is like: all hosts alike in what is the server's."""
    rng = random.Random(f"world {seed}")
    tick = (0, 4, 1000, 4, 0, 4, 1000, 0)[seed % 8]
    return {
        "hosts": rng.choice((2, 2, 3)),
        "faults": {
            "tick_ms": tick,
            "sized": rng.choice((0, 0, 1)),
            "attr_ms": rng.choice((0, 0, 200, 3000)),
            "entry_ms": 0,  # an NFS client asks again for a name whose directory changed; faultfs's kernel does not
            "unknown": rng.choice((0, 1)),
            "silly": rng.choice((0, 1)),
        },
        "conf": {
            "window_min": rng.choice((4, 4, 2000)),
            "revalidate": rng.choice(("1ms", "50ms", "300ms", "1s")),
            "cache_bytes": rng.choice(("1G", "1G", "4K")),
            "confirm": rng.choice(("200ms", "1s")),
            "scrub_interval": rng.choice(("1s", "24h")),
            "scans": rng.choice((1, 8)),
        },
    }


def seconds(text):
    """A duration of maildex.conf."""
    for unit, s in (("ms", 0.001), ("s", 1), ("min", 60), ("h", 3600)):
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return int(text[: -len(unit)]) * s
    raise ValueError(text)


class Host:
    """One host: its mirror and daemons, who its mail server is, and what a Dovecot on it remembers."""

    def __init__(self, number, faulty):
        self.number, self.m = number, faulty
        self.who = OWNER if number else 0
        self.remembers = {}  # half -> (mtime shown, names): the caching client
        self.handles = []  # what a slow reader has open: ops.py
        self.stopped = False  # maildexd got SIGSTOP
        self.late = []  # notices that will come late, again or never
        self.peer = None  # a client of maildexd that says it were a maildexfs: another host's, by a feed
        self.peer_sequence = 0

    def up(self, *parts):
        return self.m.up(*parts)

    def acting(self):
        return acting_as(self.who)

    def close_handles(self):
        for handle in self.handles:
            with contextlib.suppress(OSError):
                os.close(handle["fd"])
        self.handles.clear()

    def wakes(self):
        if self.stopped and self.m.process:
            self.m.process.send_signal(signal.SIGCONT)
        self.stopped = False

    def connected(self):
        if self.m.process and self.m.fs and not self.stopped:
            eventually("the connection", lambda: self.m.fs_status()["maildexfs.maildexd"] == "connected")

    def feed(self):
        """The peer's connection; a new one after a restart of maildexd."""
        if not self.m.process or self.stopped:
            raise Nothing("maildexd is away")
        if self.peer is None:
            self.peer = Client(self.m.socket, ROLE_FS, name="peer")
            self.peer_epoch = time.time_ns()
            self.peer_sequence = 0
        return self.peer

    def feed_ends(self):
        if self.peer:
            self.peer.close()
        self.peer = None


class World:
    """with World(params) as w: ..."""

    def __init__(self, params):
        self.params = params
        self.dir = tempfile.mkdtemp(prefix="model-")
        os.chmod(self.dir, 0o755)
        self.disk, self.kept = os.path.join(self.dir, "disk"), os.path.join(self.dir, "kept")
        self.stamps = Stamps(params["faults"])
        self.records = Records(self)
        self.hosts, self.snapshots = [], {}
        self.stack = contextlib.ExitStack()
        self.window_min = params["conf"]["window_min"]
        self.revalidate = seconds(params["conf"]["revalidate"])
        self.confirm = seconds(params["conf"]["confirm"])
        faults = params["faults"]
        self.client_keeps = (faults["attr_ms"] + faults["entry_ms"]) / 1000
        self.counts = {}
        self.inside = threading.local()  # a change that is made inside an operation of somebody else's

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            os.mkdir(self.disk, 0o755)
            os.mkdir(self.kept, 0o700)
            make_maildir(self.low("u"), uid=OWNER)
            for n in range(self.params["hosts"]):
                conf = {**self.params["conf"], "host": f"h{n}", "log": "info"}
                m = stack.enter_context(Faulty(faults=self.params["faults"], made=self.disk, **conf))
                self.hosts.append(Host(n, m))
                stack.callback(self.hosts[-1].wakes)
                stack.callback(self.hosts[-1].feed_ends)
                stack.callback(self.hosts[-1].close_handles)
                stack.callback(m.faults.clear)
                m.start()
                m.fs_start()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def low(self, *parts):
        return os.path.join(self.disk, *parts)

    def count(self, what, n=1):
        self.counts[what] = self.counts.get(what, 0) + n

    # -- what is on the disk

    def folders(self):
        return [f for f in FOLDERS if all(os.path.isdir(self.low(f, h)) for h in HALVES)]

    def halves(self):
        return [(f, h) for f in self.folders() for h in HALVES]

    def on_disk(self, half):
        """{name: inode}"""
        try:
            return {e.name: e.inode() for e in os.scandir(self.low(*half))}
        except FileNotFoundError:
            return {}

    def messages(self, *halves):
        """[(half, name)]"""
        return [(h, n) for h in halves or self.halves() for n in sorted(self.on_disk(h))]

    def find(self, message, halves=None):
        """Where a message (a base name) is now."""
        for half, name in self.messages(*(halves or ())):
            if base(name.encode()).decode() == message:
                return half, name
        raise Nothing(message)

    def need_folder(self, folder):
        if folder not in self.folders():
            raise Nothing(folder)

    # -- who does it: a number of a host, or None: a silent writer below

    def path(self, host, *parts):
        return self.low(*parts) if host is None else self.hosts[host].up(*parts)

    def acting(self, host):
        if host is not None and not self.hosts[host].m.fs:
            raise Nothing("no mount")
        return acting_as(OWNER) if host is None else self.hosts[host].acting()

    # -- primitives: one system call each

    def rename(self, host, half, name, to_half, to_name):
        with self.records.changing(host, {half: [(name, None)], to_half: [(to_name, name)]}), self.acting(host):
            os.rename(self.path(host, *half, name), self.path(host, *to_half, to_name))

    def link(self, host, source, half, name):
        """source: path in the tree."""
        with self.records.changing(host, {half: [(name, None)]}), self.acting(host):
            os.link(self.path(host, source), self.path(host, *half, name))

    def unlink(self, host, half, name):
        with self.records.changing(host, {half: [(name, None)]}), self.acting(host):
            os.unlink(self.path(host, *half, name))

    def create(self, host, half, name):
        with self.records.changing(host, {half: [(name, None)]}), self.acting(host):
            self.write(self.path(host, *half, name), name)

    @staticmethod
    def write(path, name):
        """Its content says which message it is."""
        with open(path, "xb") as f:
            f.write(base(os.fsencode(name)) + b"\n")
        if os.stat(path).st_uid != OWNER:
            os.chown(path, OWNER, OWNER)

    def utime(self, host, half, times):
        with self.records.changing(host, {half: []}), self.acting(host):
            os.utime(self.path(host, *half), ns=times)
        self.records.times_set(half)

    def to_tmp(self, host, folder, name):
        self.records.named(host, folder)
        with self.acting(host):
            path = self.path(host, folder, "tmp", name)
            if os.path.exists(path):
                os.unlink(path)
            self.write(path, name)
        return os.path.join(folder, "tmp", name)

    def from_tmp(self, host, folder, name):
        with self.acting(host):
            os.unlink(self.path(host, folder, "tmp", name))

    def make_folder(self, host, folder):
        with self.records.folder_changing(host, folder), self.acting(host):
            make_maildir(self.path(host, folder), uid=None if host is not None and self.hosts[host].who else OWNER)

    def drop_folder(self, host, folder):
        """What a host does not list yet, or any longer (record.py's excuses), goes below."""
        with self.records.folder_changing(host, folder), self.acting(host):
            if host is not None:
                shutil.rmtree(self.path(host, folder), ignore_errors=True)
            if os.path.exists(self.low(folder)):
                shutil.rmtree(self.low(folder))

    def rename_folder(self, host, folder, to):
        with self.records.folder_changing(host, folder, to), self.acting(host):
            os.rename(self.path(host, folder), self.path(host, to))

    # -- what happens to the server

    def clock_back(self, ms):
        self.stamps.clock_back(time.time_ns(), ms * 1000000)
        for h in self.hosts:
            h.m.faults.clock(*self.stamps.steps[-1])

    def take_snapshot(self, half):
        with self.records.lock:
            at = os.path.join(self.kept, str(len(self.snapshots)))
            shutil.rmtree(at, ignore_errors=True)
            os.mkdir(at)
            for name in self.on_disk(half):
                os.link(self.low(*half, name), os.path.join(at, name))
            self.snapshots[half] = (at, self.stamps.of(self.low(*half)), self.records.incarnation(half))

    def roll_back(self, half):
        """The half is as it was at its snapshot, times and inode numbers and all."""
        at, stamp, incarnation = self.snapshots.get(half, (None, None, None))
        if at is None or incarnation != self.records.incarnation(half) or not self.records.stands_for(half, stamp, os.listdir(at)):
            raise Nothing("no snapshot that a stamp stands for")
        elsewhere = {message_of(n) for h, n in self.messages() if h != half}
        if elsewhere & {message_of(n) for n in os.listdir(at)}:
            raise Nothing("a message would be in two halves")
        with self.records.rolling_back(half):
            for name in self.on_disk(half):
                os.unlink(self.low(*half, name))
            for name in os.listdir(at):
                os.link(os.path.join(at, name), self.low(*half, name))
            real = os.stat(self.low(*half)).st_ctime_ns
            self.stamps.roll_back(self.low(*half), real, stamp)
            for h in self.hosts:
                h.m.faults.stamp("/".join(half), real, stamp[0], stamp[1])

    # -- what happens to the programs

    def stop_maildexd(self, host, kill):
        h = self.hosts[host]
        if not h.m.process:
            raise Nothing("is stopped")
        h.wakes()
        h.feed_ends()
        if kill:
            h.m.kill()
        else:
            h.m.stop()

    def start_maildexd(self, host):
        if self.hosts[host].m.process:
            raise Nothing("runs")
        self.hosts[host].m.start()
        self.records.started(host)

    def restart_maildexfs(self, host, kill):
        h = self.hosts[host]
        h.close_handles()
        h.m.faults.clear()
        if kill:
            h.m.fs_kill()
            subprocess.run(["umount", "-l", h.m.mnt], check=True, timeout=WAIT_S)
        else:
            h.m.fs_stop()
        self.records.remounted(host)
        h.m.fs_start()

    # -- looking

    def stat(self, host, half):
        with self.acting(host):
            return os.stat(self.path(host, *half))

    def open_half(self, host, half):
        with self.acting(host):
            return os.open(self.path(host, *half), os.O_RDONLY | os.O_DIRECTORY)

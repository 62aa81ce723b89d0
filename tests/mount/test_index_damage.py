# SPDX-License-Identifier: GPL-2.0-or-later
"""The index is damaged under both daemons while sessions list, deliver and rename through the mount: every listing is
right at once, no mail is touched, and the index heals by itself, with a line in the log that says what happened.

maildexfs keeps no folder in memory here: each opendir reads the index. Each half is scrubbed once a second: what nobody
reads is found too."""

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest

from daemon import BUILD, WAIT_S
from host import Maildex, eventually, getdents_all, opened, touch

CTL = os.path.abspath(os.path.join(BUILD, "maildexctl"))
HEAL_S = WAIT_S / 6  # for what takes a second or two
FOLDERS = [f"u/.F{i}" for i in range(8)]
HALVES = [f"{f}/{half}" for f in FOLDERS for half in ("new", "cur")]
LOG_MAX = 8 * len(HALVES)  # some lines for each half are many already
COMPANIONS = ("-wal", "-shm")
TOLD = r"^maildexd: (warning|error): .*(built anew|opened anew)"


def entries(path):
    """Names, inodes and types, each as often as it is listed."""
    with opened(path) as fd:
        return sorted((name, ino, kind) for ino, _, kind, name in getdents_all(fd) if name not in (b".", b".."))


class Session(threading.Thread):
    """A server at work in a mailbox of its own: it alone changes it, so it knows what must be listed."""

    def __init__(self, m, mailbox, seed):
        super().__init__()
        self.m, self.mailbox, self.random = m, mailbox, random.Random(seed)
        self.has = {half: set(os.listdir(m.low(mailbox, half))) for half in ("new", "cur")}
        self.ends, self.wrong, self.rounds = threading.Event(), None, 0

    def run(self):
        try:
            while not self.ends.wait(0.005):
                self.rounds += 1
                self.step(*self.random.choice((("new", "new"), ("new", "cur"), ("cur", "cur"))))
                for half, names in self.has.items():
                    listed = os.listdir(self.m.up(self.mailbox, half))
                    assert sorted(listed) == sorted(names), f"{self.mailbox}/{half}, round {self.rounds}"
        except (AssertionError, OSError) as e:
            self.wrong = e

    def step(self, old, new):
        """A delivery; or a message moves or gets a flag."""
        m, name = self.m, f"18{self.rounds:08}.M1P1.{self.mailbox}"
        if new == "new" or not self.has[old]:
            touch(m.up(self.mailbox, "tmp", name))
            os.rename(m.up(self.mailbox, "tmp", name), m.up(self.mailbox, "new", name))
            self.has["new"].add(name)
            return
        was = self.random.choice(sorted(self.has[old]))
        name = was.split(":")[0] + f":2,{self.rounds}"
        os.rename(m.up(self.mailbox, old, was), m.up(self.mailbox, new, name))
        self.has[old].remove(was)
        self.has[new].add(name)


class Place(Maildex):
    """A host with folders that only we change, through the mount, and two sessions beside."""

    def __init__(self, **conf):
        super().__init__(window_min=10, cache_bytes=1, scrub_interval="1s", log="info", **conf)
        self.sessions, self.round = [], 0
        for name in ("u", "s0", "s1"):
            self.maildir(name, cur=20)
        for i, folder in enumerate(FOLDERS):
            self.maildir(folder, new=2, cur=15 + 12 * i)

    def __exit__(self, *args):
        for s in self.sessions:
            s.ends.set()
            s.join()
        super().__exit__(*args)

    def ctl(self, *args):
        return subprocess.run(
            [CTL, "-c", os.path.join(self.dir, "maildex.conf"), *args],
            capture_output=True,
            timeout=WAIT_S,
            check=False,
        )

    def both(self):
        self.start()
        self.fs_start()
        self.connected()

    def connected(self):
        eventually("the connection", lambda: self.fs_status()["maildexfs.maildexd"] == "connected")

    def start_again(self):
        try:
            self.start()
        except AssertionError:
            self.kill()  # it has ended
            os.unlink(os.path.join(self.dir, "notify"))
            raise

    def begin(self, in_file):
        """Indexed, and at work. in_file: all of it in the file itself; else it is still in the log."""
        self.both()
        assert self.ctl("rebuild", "--all").returncode == 0
        if in_file:
            self.fs_stop()
            self.stop()
            self.both()
        self.before = self.tree()
        self.said = len(self.lines())
        self.sessions = [Session(self, f"s{i}", i) for i in range(2)]
        for s in self.sessions:
            s.start()
        eventually("sessions at work", lambda: all(s.rounds > 3 for s in self.sessions))

    def tree(self):
        """The lower folders that are ours, as they are on disk."""
        found = {}
        for half in HALVES:
            for e in os.scandir(self.low(half)):
                found[f"{half}/{e.name}"] = (e.inode(), e.stat().st_size)
        return found

    def lines(self):
        text = self.logged() + self.fs_logged()
        return [line for line in text.splitlines() if ": warning: " in line or ": error: " in line]

    def change(self, half):
        """A message of ours gets a flag."""
        self.round += 1
        was = min(os.listdir(self.low(half)))
        name = was.split(":")[0] + f":2,R{self.round}"
        os.rename(self.up(half, was), self.up(half, name))
        self.before[f"{half}/{name}"] = self.before.pop(f"{half}/{was}")

    def right(self):
        """Every listing is right, now."""
        for half in HALVES:
            above, below = entries(self.up(half)), entries(self.low(half))
            assert above == below, half
        for s in self.sessions:
            assert not s.wrong, s.wrong

    def right_at_once(self):
        """Before and after changes in some of the folders."""
        self.right()
        for half in HALVES[:: max(1, len(HALVES) // 6)]:
            self.change(half)
        self.right()

    def sick(self):
        """What is not well, or "" ."""
        status, verify = self.ctl("status"), self.ctl("verify", "--all")
        if status.returncode:
            return "status: " + status.stdout.decode().splitlines()[0]
        if verify.returncode:
            return "verify: " + (verify.stdout + verify.stderr).decode()[-600:]
        with self.counting("lower.listings") as n:
            self.right()
        return f"{n['lower.listings']} folders were listed from below" if n["lower.listings"] else ""

    def heals(self, says=None, least=1):
        """By itself. Then the sessions had no trouble, the mail is as it was, and the log has told, but not much: by `least`
        lines or more that say so."""
        rounds = [s.rounds for s in self.sessions]
        eventually("sessions to go on", lambda: all(s.wrong or s.rounds > n + 3 for s, n in zip(self.sessions, rounds)))
        for s in self.sessions:
            s.ends.set()
            s.join()
        end = time.monotonic() + HEAL_S
        while why := self.sick():
            assert time.monotonic() < end, f"not healthy after {HEAL_S} s: {why}"
            time.sleep(0.1)
        self.right()
        assert self.tree() == self.before
        said = self.lines()[self.said :]
        assert len(said) <= LOG_MAX, said[:LOG_MAX]
        if says:  # by a line; a replaced index may be found damaged, too
            assert least <= len([line for line in said if re.search(says, line)]) <= 2, said
        for s in self.sessions:
            for half, names in s.has.items():
                assert set(os.listdir(self.low(s.mailbox, half))) == names


@pytest.fixture
def place():
    with Place() as p:
        yield p


def flip(path, at, bit):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


def truncate(path, keep):
    os.truncate(path, int(os.path.getsize(path) * keep) // 2 * 2 + (keep > 0))


def zero(path, begin):
    """A quarter of it."""
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.seek(int(size * begin))
        f.write(bytes(size // 4))


DAMAGES = {
    "truncated to 0": lambda path: truncate(path, 0),
    "truncated to an odd length": lambda path: truncate(path, 0.6),
    "zeroed in the middle": lambda path: zero(path, 0.4),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", ["", "-wal"])
def test_truncated_and_zeroed(place, what, damage):
    """In that part of the index that holds nearly all of it."""
    place.begin(in_file=not what)
    DAMAGES[damage](place.index + what)
    place.right_at_once()
    place.heals(TOLD, least=0 if what else 1)  # a checkpoint may just have copied what was in the log


@pytest.mark.parametrize("what", ["", "-wal"])
def test_file_gone_in_which_nothing_was_yet(place, what):
    """The other way round: all that the index holds stands in the other file."""
    place.begin(in_file=bool(what))
    truncate(place.index + what, 0)
    place.right_at_once()
    place.heals(TOLD)


def claims(data, root):
    """Where it says whose it is, and for which tree: what seems to be another's is refused (test_header_of_another)."""
    for page in re.finditer(rb"SQLite format 3\0", data):
        yield range(page.start() + 60, page.start() + 72)
    for fact in re.finditer(re.escape(os.fsencode(root)), data):
        yield range(fact.start() - 64, fact.end() + 64)


def flip_some(place, path, rng):
    with open(path, "rb") as f:
        data = f.read()
    taboo = list(claims(data, place.root))
    for _ in range(3):
        at = next(at for at in iter(lambda: rng.randrange(len(data)), None) if not any(at in r for r in taboo))
        flip(path, at, rng.randrange(8))


@pytest.mark.parametrize("what", ["", "-wal"])
@pytest.mark.parametrize("seed", range(2))
def test_bits_flipped(place, what, seed):
    """One here and one there, while everything is read and some of it written in between."""
    rng = random.Random(f"{what}{seed}")
    place.begin(in_file=not what)
    for _ in range(12):
        flip_some(place, place.index + what, rng)
        place.right_at_once()
    place.heals()


# Where a SQLite file says what it is.
HEADER = {"magic": 3, "page size": 16}
OTHERS = {"newer": (62, "has schema version"), "another program's": (70, "is another program's SQLite file")}


def stop_with_flip(place, at):
    """The bit is flipped under both; then maildexd ends, and leaves no log that has the page as it was."""
    place.begin(in_file=True)
    flip(place.index, at, 1)
    place.right_at_once()
    place.kill()
    place.right_at_once()
    for suffix in COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.index + suffix)


@pytest.mark.parametrize("field", HEADER)
def test_bit_flipped_in_the_header(place, field):
    """Found by the next start of maildexd, at the latest: it must be able to start."""
    stop_with_flip(place, HEADER[field])
    place.start_again()
    place.right_at_once()
    place.heals(TOLD)


@pytest.mark.parametrize("whose", OTHERS)
def test_header_of_another(place, whose):
    """What claims to be somebody else's is not touched: maildexd says so and does not start; the mail is served."""
    at, says = OTHERS[whose]
    stop_with_flip(place, at)
    with pytest.raises(AssertionError, match=says):
        place.start_again()
    place.right_at_once()
    os.unlink(place.index)
    place.start_again()
    place.right_at_once()
    place.heals(says)


def test_type_of_a_name_flipped(place):
    """A message that is listed as no regular file is skipped by those who believe it. No scrub comes to the rescue."""
    place.conf["scrub_interval"] = "24h"
    place.begin(in_file=True)
    place.kill()
    with contextlib.closing(sqlite3.connect(place.index)) as db:
        ours = "half IN (SELECT id FROM half WHERE CAST(folder AS TEXT) LIKE 'u/.F%')"
        db.execute(f"UPDATE message SET type = type + 1 WHERE name = (SELECT min(name) FROM message) AND {ours}")
        assert db.total_changes == len(FOLDERS)
        db.commit()
    place.start_again()
    place.right_at_once()
    place.connected()  # from now on, what is listed reaches maildexd
    place.right_at_once()
    place.heals()


@pytest.mark.parametrize("suffixes", [("",), ("-wal",), ("-shm",), ("-wal", "-shm"), ("", "-shm")], ids="+".join)
def test_deleted(place, suffixes):
    place.begin(in_file=False)
    for suffix in suffixes:
        os.unlink(place.index + suffix)
    place.right_at_once()
    place.heals(TOLD if suffixes != ("-shm",) else None)


def foreign_index(to):
    """A sound index of another tree, made by a maildexd of its own."""
    with Maildex() as other:
        subprocess.run(["mount", "-t", "tmpfs", "another", other.root], check=True)
        try:
            other.maildir("u", cur=30)
            other.maildir("u/.F3", cur=30)
            other.start()
            with other.client() as c:
                assert c.rebuild()[0] == 0
            other.stop()
            shutil.copy(other.index, to)
        finally:
            subprocess.run(["umount", other.root], check=True)


@pytest.mark.parametrize("companions", ["log stays", "log goes"])
def test_replaced_by_another_trees(place, companions):
    """It is refused until it is removed."""
    place.begin(in_file=True)
    foreign_index(place.index + ".foreign")
    if companions == "log goes":
        for suffix in COMPANIONS:
            os.unlink(place.index + suffix)
    os.rename(place.index + ".foreign", place.index)
    place.right_at_once()
    says = "was built for the tree .*: mount the right tree, or delete the index"
    eventually("status to tell", lambda: re.search(says, place.ctl("status").stdout.decode()))
    place.right_at_once()
    assert os.path.exists(place.index)  # it is somebody's
    os.unlink(place.index)
    place.right_at_once()
    place.heals("^maildexd: error: .*" + says)


@pytest.mark.parametrize("companions", ["log stays", "log goes"])
@pytest.mark.parametrize("how", ["renamed", "written over"])
def test_replaced_by_an_older_one(place, how, companions):
    """A backup that was restored: all that it holds was right once."""
    old = place.index + ".old"
    place.both()
    assert place.ctl("rebuild", "--all").returncode == 0
    place.fs_stop()
    place.stop()
    shutil.copy(place.index, old)
    for half in HALVES[::2]:
        name = min(os.listdir(place.low(half)))
        os.rename(place.low(half, name), place.low(half, name + ".later"))
    place.begin(in_file=True)
    if how == "written over":
        with open(old, "rb") as f, open(place.index, "r+b") as to:
            shutil.copyfileobj(f, to)
            to.truncate()
    if companions == "log goes":
        for suffix in COMPANIONS:
            with contextlib.suppress(FileNotFoundError):  # maildexd may be quicker
                os.unlink(place.index + suffix)
    if how == "renamed":
        os.rename(old, place.index)
    place.right_at_once()
    place.heals(TOLD if (how, companions) != ("written over", "log stays") else None)


def test_disk_full(place):
    """The index's own disk; that of the mail has room."""
    folder = os.path.dirname(place.index)
    os.mkdir(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    place.begin(in_file=False)
    filler = os.path.join(folder, "filler")
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as f:
        while True:
            f.write(bytes(4096))

    def noticed():
        place.right_at_once()
        return place.ctl("status").stdout.startswith(b"maildexd: index: ")

    eventually("status to tell", noticed)
    place.right_at_once()
    os.unlink(filler)
    place.heals("^maildexd: error: .*make room on its disk.*; tried again every second")

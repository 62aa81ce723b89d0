# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call that maildex makes below fails once, one at a time, while a mail owner delivers, reads, flags and expunges through
the mount. What the owner was told has happened has; no message is lost or in two places; a listing is an error or right,
also the very next one."""

import contextlib
import os
from errno import EIO, ENOSPC, ESTALE

import pytest

from daemon import BUILD, make_maildir, until
from faultfs import Faulty
from host import acting_as

pytestmark = pytest.mark.skipif(BUILD.endswith("tsan"), reason="one call after the other: no races, and minutes")

OWNER = 2345
WAITING, READ, OLD = "1700000000.M1.host", "1600000000.M2.host", "1600000001.M3.host"
LINKED, RENAMED, LATER = (f"1800000000.M{n}.host" for n in (4, 5, 6))
KINDS = (
    "getattr access opendir readdir create open read write flush fsync getxattr link rename unlink mkdir rmdir"
).split()  # fmt: skip


class Owner:
    """What it does to a mailbox of its own, and whether what it hears is true. allowed: the errors that it may meet."""

    def __init__(self, m, box, allowed=()):
        self.m, self.box, self.allowed = m, box, allowed
        self.failed = []

    def up(self, path):
        return self.m.up(self.box, path)

    def there(self, path):
        return self.m.there(self.box, path)

    def attempt(self, what, *paths):
        """Was it told to have happened?"""
        try:
            what(*map(self.up, paths))
            return True
        except OSError as e:
            assert e.errno in self.allowed, (what.__name__, paths, e)
            self.failed.append((what.__name__, paths, e.errno))
            return False

    def places(self, message):
        """Where it is, whole: [path]."""
        found = [os.path.join(h, n) for h in ("new", "cur") for n in os.listdir(self.there(h)) if n.split(":")[0] == message]
        for path in found:
            with open(self.there(path), "rb") as f:
                assert f.read() == content(message), path
        return found

    def make_mailbox(self):
        os.mkdir(self.m.there(self.box))
        make_maildir(self.m.there(self.box))
        for path in ("new/" + WAITING, f"cur/{READ}:2,S", f"cur/{OLD}:2,"):
            write(self.there(path))

    # -- what it does

    def lists(self, half):
        try:
            names = os.listdir(self.up(half))
        except OSError as e:
            assert e.errno in self.allowed, (half, e)
            self.failed.append(("list", half, e.errno))
            return
        assert sorted(names) == sorted(os.listdir(self.there(half))), (half, self.failed)

    def lists_both(self):
        self.lists("new")
        self.lists("cur")

    def delivers(self, message, how):
        tmp, new = "tmp/" + message, "new/" + message
        told = self.attempt(write, tmp) and self.attempt(how, tmp, new)
        found = self.places(message)
        assert found == [new] if told else found in ([], [new]), (message, told, found, self.failed)
        if os.path.exists(self.there(tmp)):
            self.attempt(os.unlink, tmp)

    def renames(self, message, to):
        """Returns whether it can go on with it."""
        before = self.places(message)
        if not before:
            return False
        told = self.attempt(os.rename, before[0], to)
        found = self.places(message)
        assert found == [to] if told else found in (before, [to]), (message, to, told, found, self.failed)
        return found == [to]

    def reads(self, message):
        for path in self.places(message):
            try:
                with open(self.up(path), "rb") as f:
                    assert f.read() == content(message), self.failed
            except OSError as e:
                assert e.errno in self.allowed, e
                self.failed.append(("read", path, e.errno))

    def expunges(self, message):
        before = self.places(message)
        told = before and self.attempt(os.unlink, before[0])
        found = self.places(message)
        assert found == [] if told else found in ([], before), (message, told, found, self.failed)

    def makes_and_drops_a_folder(self):
        parts = (".S", ".S/new", ".S/cur", ".S/tmp")
        for part in parts:
            if os.path.exists(os.path.dirname(self.there(part))):
                told = self.attempt(os.mkdir, part)
                assert os.path.isdir(self.there(part)) or not told, part
        there = [part for part in parts if os.path.exists(self.there(part))]
        for part in [".", *there[1:2]]:
            self.lists(part)
        for part in reversed(there):
            if not os.listdir(self.there(part)):
                told = self.attempt(os.rmdir, part)
                assert not (told and os.path.exists(self.there(part))), part
        self.lists(".")

    def lives(self):
        """A day of a mailbox."""
        self.delivers(LINKED, os.link)
        self.lists_both()
        self.delivers(RENAMED, os.rename)
        self.lists("new")
        for message in (WAITING, LINKED):
            if self.renames(message, f"cur/{message}:2,S"):
                self.reads(message)
                self.lists_both()
                self.renames(message, f"cur/{message}:2,FS")
        self.lists("cur")
        for message in (OLD, LINKED, WAITING):
            self.expunges(message)
        self.lists_both()
        self.makes_and_drops_a_folder()

    def goes_on(self):
        """All that stays of the day before is what is there."""
        self.lists_both()
        self.delivers(LATER, os.rename)
        self.renames(LATER, f"cur/{LATER}:2,S")
        self.lists_both()
        self.expunges(LATER)
        self.lists("cur")


def content(message):
    return f"Message-Id: <{message}>\n\n".encode() * 20


def write(path):
    with open(path, "xb", buffering=0) as f:
        f.write(content(os.path.basename(path).split(":")[0]))
        os.fsync(f.fileno())


@contextlib.contextmanager
def host(faults, conf):
    with Faulty(faults=faults, revalidate="1ms", **conf) as m:
        os.chmod(m.made, 0o777)
        m.start()
        m.fs_start()
        until("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")
        yield m


@pytest.fixture(scope="module")
def plain():
    """A client that keeps nothing."""
    with host({}, {}) as m:
        yield m


@pytest.fixture(scope="module")
def windows():
    """One that keeps attributes and names for a while; windows around own changes."""
    with host({"attr_ms": 3000, "entry_ms": 1000}, {"window_min": 1}) as m:
        yield m


@pytest.fixture(params=["plain", "windows"])
def m(request):
    return request.getfixturevalue(request.param)


class Boxes:
    """One mailbox for each run."""

    made = 0

    def next(self):
        self.made += 1
        return f"u{self.made:05}"


BOXES = Boxes()


def run(m, order, kind, allowed, **which):
    """A day in which the nth such call fails, and what goes well behind it. order: None, or m.faults.fail or .lose."""
    owner = Owner(m, BOXES.next(), allowed)
    with acting_as(OWNER):
        owner.make_mailbox()
        if order:
            order(kind, owner.box + "*", allowed[0], **which)
        owner.lives()
        m.faults.clear()
        owner.allowed = ()
        owner.goes_on()
    return owner


def calls(m):
    """How many calls of each kind below a day takes."""
    owner = Owner(m, BOXES.next())
    with acting_as(OWNER):
        owner.make_mailbox()
        m.faults.counts_reset()
        owner.lives()
    made = {}
    for key, n in m.faults.counts().items():
        kind, path = key.split(" ", 1)
        if path.startswith(owner.box):
            made[kind] = made.get(kind, 0) + n
    return made


def each(m, order, kind, errors, times=1):
    """One run for every call of that kind."""
    wrong = []
    for n in range(1, calls(m).get(kind, 0) + 1):
        try:
            run(m, order, kind, errors, nth=n, times=times)
        except AssertionError as e:
            wrong.append(f"{kind} {n}: {e}")
    assert not wrong, "\n".join(wrong)


def test_no_call_fails(m):
    owner = run(m, None, None, ())
    assert not owner.failed
    assert set(calls(m)) - {"release", "releasedir"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nth_call_fails(m, kind):
    each(m, m.faults.fail, kind, (EIO,))


TRIED_AGAIN = "getattr access opendir readdir open read link rename unlink".split()


@pytest.mark.parametrize("error", [EIO, ESTALE])
@pytest.mark.parametrize("kind", TRIED_AGAIN)
def test_the_nth_call_fails_twice(windows, kind, error):
    """The kernel tries these again by itself."""
    each(windows, windows.faults.fail, kind, (error, EIO), times=2)


@pytest.mark.parametrize("kind", ["create", "write", "fsync", "link", "rename", "mkdir"])
def test_the_nth_call_finds_no_space(m, kind):
    each(m, m.faults.fail, kind, (ENOSPC,))


@pytest.mark.parametrize("kind", ["link", "rename", "unlink", "mkdir", "rmdir"])
def test_the_nth_call_is_done_but_its_answer_is_lost(m, kind):
    each(m, m.faults.lose, kind, (EIO,))

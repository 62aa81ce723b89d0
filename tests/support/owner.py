# SPDX-License-Identifier: GPL-2.0-or-later
"""A mail owner who delivers, reads, flags and expunges through a mount of faultfs.py, and knows what it was told."""

import os

from daemon import make_maildir
from host import acting_as

OWNER = 2345
WAITING, READ, OLD = "1700000000.M1.host", "1600000000.M2.host", "1600000001.M3.host"
LINKED, RENAMED, LATER = (f"1800000000.M{n}.host" for n in (4, 5, 6))


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


class Boxes:
    """One mailbox for each run."""

    made = 0

    def next(self):
        self.made += 1
        return f"u{self.made:05}"


BOXES = Boxes()


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

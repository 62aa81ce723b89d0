# SPDX-License-Identifier: GPL-2.0-or-later
"""A session of the soak, in a process of its own (process.Process): what mail servers and delivery agents do in
mailboxes, with messages and folders that are its own. Between two steps it holds nothing open. Some steps change the tree
below the mount, or speak to maildexd, and go."""

import ctypes
import fcntl
import os
import random
import time
import traceback

from daemon import ROLE_CTL, ROLE_NOTIFY, Client, until
from host import getdents, libc, ls, opened

MESSAGES, FOLDERS = 150, 3  # of each session, at most
HALVES = ("new", "cur")
IN_CREATE = 0x100


class Session:
    """at: its messages, as [folder, half, name]. Each step returns how many operations it was."""

    def __init__(self, number, mount, root, socket, boxes):
        self.number, self.mount, self.root, self.socket, self.boxes = number, mount, root, socket, boxes
        self.random = random.Random(number)
        self.at, self.folders, self.made = [], [], 0

    def up(self, *parts):
        return os.path.join(self.mount, *parts)

    def low(self, *parts):
        return os.path.join(self.root, *parts)

    def folder(self):
        return self.random.choice(self.folders if self.folders and self.random.random() < 0.2 else self.boxes)

    def message(self, half=None):
        """One of its own, in this half if there is one soon; with its place in self.at."""
        for _ in range(10):
            i = self.random.randrange(len(self.at))
            if half in (None, self.at[i][1]):
                return i, self.at[i]
        return None, None

    def expunged(self, i):
        self.at[i] = self.at[-1]
        self.at.pop()

    def work(self, operations, seconds):
        """Until there were so many, or for so long. Returns how many there were."""
        done, end = 0, time.monotonic() + seconds
        while done < operations and time.monotonic() < end:
            if len(self.at) < MESSAGES // 2:
                done += self.deliver()
            elif len(self.at) > MESSAGES:
                done += self.expunge()
            done += self.random.choice(STEPS)(self)
        return done

    # -- messages

    def letter(self, top, folder):
        self.made += 1
        name = f"17{self.number:02}{self.made:07}.M{self.made}P{self.number}.host"
        with open(os.path.join(top, folder, "tmp", name), "xb") as f:
            f.write(b"x" * self.random.choice((200, 3000, 20000)))
        return name

    def delivered(self, top, folder):
        """By rename, through the mount or below it. Returns its name."""
        name = self.letter(top, folder)
        os.rename(os.path.join(top, folder, "tmp", name), os.path.join(top, folder, "new", name))
        self.at.append([folder, "new", name])
        return name

    def deliver(self):
        self.delivered(self.mount, self.folder())
        return 2

    def deliver_by_link(self):
        """Two names for a while, as some agents have it."""
        folder = self.folder()
        name = self.letter(self.mount, folder)
        os.link(self.up(folder, "tmp", name), self.up(folder, "new", name))
        os.unlink(self.up(folder, "tmp", name))
        self.at.append([folder, "new", name])
        return 3

    def flag(self, half=None):
        """Within cur/, or out of new/."""
        _, m = self.message(half)
        if not m:
            return 0
        folder, half, name = m
        new = name.split(":")[0] + ":2," + "".join(sorted(self.random.sample("DFRST", 2)))
        os.rename(self.up(folder, half, name), self.up(folder, "cur", new))
        m[1:] = ["cur", new]
        return 1

    def move(self):
        return self.flag(half="new")

    def to_folder(self):
        _, m = self.message()
        folder = self.folder()
        os.rename(self.up(*m), self.up(folder, *m[1:]))
        m[0] = folder
        return 1

    def expunge(self):
        i, m = self.message()
        os.unlink(self.up(*m))
        self.expunged(i)
        return 1

    def expunge_open(self):
        """Who reads it goes on."""
        i, m = self.message()
        with open(self.up(*m), "rb") as f:
            os.unlink(self.up(*m))
            assert f.read()
        self.expunged(i)
        return 2

    def read(self):
        _, m = self.message()
        with open(self.up(*m), "rb") as f:
            assert f.read()
        return 1

    def append(self):
        _, m = self.message()
        with open(self.up(*m), "ab") as f:
            f.write(b"y" * 10)
        return 1

    def attributes(self):
        _, m = self.message()
        path = self.up(*m)
        os.setxattr(path, "user.soak", b"1")
        assert os.getxattr(path, "user.soak") == b"1"
        os.removexattr(path, "user.soak")
        os.utime(path)
        os.chmod(path, 0o600)
        return 5

    # -- listings

    def list(self):
        """Its own are there, each once; what was changed below may be late (doc/GUARANTEES.md, "The exceptions")."""
        folder, half = self.folder(), self.random.choice(HALVES)
        own = {os.fsencode(n) for f, h, n in self.at if (f, h) == (folder, half)}
        if not own <= ls(self.up(folder, half)):
            until(f"{own} in {folder}/{half}", lambda: own <= ls(self.up(folder, half)))
        return 1

    def list_in_pieces(self):
        """With a change in the middle, and from the start again."""
        folder = self.folder()
        with opened(self.up(folder, "cur")) as fd:
            first = getdents(fd, 2000)
            done = 1 + self.deliver()
            if len(first) > 2:
                os.lseek(fd, first[1][1], os.SEEK_SET)
                assert getdents(fd, 2000)[0][3] == first[2][3]
            os.lseek(fd, 0, os.SEEK_SET)
            getdents(fd)
        return done + 2

    def look(self):
        folder = self.folder()
        for half in HALVES:
            os.stat(self.up(folder, half))
        return 2

    # -- locks

    def lock(self):
        """For which another session may wait."""
        with open(self.up(self.random.choice(self.boxes), "lock"), "ab") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            fcntl.flock(f, fcntl.LOCK_EX)
            fcntl.lockf(f, fcntl.LOCK_UN)
        return 4

    # -- folders

    def make_folder(self):
        if len(self.folders) >= FOLDERS:
            return self.drop_folder()
        self.made += 1
        folder = f"{self.random.choice(self.boxes)}/.S{self.number}x{self.made}"
        for sub in ("", "tmp", "new", "cur"):
            os.mkdir(self.up(folder, sub), 0o700)
        self.folders.append(folder)
        return 4

    def rename_folder(self):
        if not self.folders:
            return 0
        i = self.random.randrange(len(self.folders))
        self.made += 1
        old, new = self.folders[i], f"{self.random.choice(self.boxes)}/.S{self.number}x{self.made}"
        os.rename(self.up(old), self.up(new))
        self.folders[i] = new
        for m in self.at:
            if m[0] == old:
                m[0] = new
        return 1

    def drop_folder(self):
        folder = self.folders.pop(self.random.randrange(len(self.folders)))
        inside = [m for m in self.at if m[0] == folder]
        self.at = [m for m in self.at if m[0] != folder]
        for m in inside:
            os.unlink(self.up(*m))
        for sub in ("tmp", "new", "cur", ""):
            os.rmdir(self.up(folder, sub))
        return len(inside) + 4

    # -- from elsewhere

    def silently(self):
        """Below the mount: a delivery, a flag, an expunge; then somebody lists."""
        i, m = self.message("cur")
        if not m:
            return 0
        folder = m[0]
        what = self.random.randrange(3)
        if what == 0:
            self.delivered(self.root, folder)
        elif what == 1:
            new = m[2].split(":")[0] + ":2,P" + "".join(sorted(self.random.sample("FRST", 2)))
            os.rename(self.low(*m), self.low(folder, "cur", new))
            m[2] = new
        else:
            os.unlink(self.low(*m))
            self.expunged(i)
        for half in HALVES:
            ls(self.up(folder, half))
        return 3

    def tell(self):
        """A delivery below, of which the agent's hook tells; a client in IDLE waits for it."""
        folder = self.random.choice(self.boxes)
        fd = libc.inotify_init1(os.O_CLOEXEC)
        try:
            assert libc.inotify_add_watch(fd, os.fsencode(self.up(folder, "new")), ctypes.c_uint32(IN_CREATE)) >= 0
            name = self.delivered(self.root, folder)
            with Client(self.socket, ROLE_NOTIFY, "hook") as c:
                c.notify(f"{folder}/new/{name}")
        finally:
            os.close(fd)
        ls(self.up(folder, "new"))
        return 4

    def ask(self):
        """What maildexctl status asks."""
        for path in (self.socket, self.socket + ".fs"):
            with Client(path, ROLE_CTL, "status") as c:
                c.status()
        return 2


# As often as they stand here.
STEPS = (
    [Session.deliver] * 6
    + [Session.deliver_by_link] * 2
    + [Session.move] * 8
    + [Session.flag] * 12
    + [Session.to_folder] * 3
    + [Session.expunge] * 6
    + [Session.expunge_open] * 2
    + [Session.read] * 16
    + [Session.append] * 4
    + [Session.attributes]
    + [Session.list] * 12
    + [Session.list_in_pieces] * 3
    + [Session.look] * 8
    + [Session.lock] * 2
    + [Session.make_folder] * 2
    + [Session.rename_folder] * 2
    + [Session.silently] * 3
    + [Session.tell]
    + [Session.ask]
)
HERE = []  # in the process: its session


def begin(*args):
    HERE[:] = [Session(*args)]


def work(operations, seconds):
    """Returns how many operations there were, and what went wrong."""
    try:
        return HERE[0].work(operations, seconds), None
    except Exception:  # pylint: disable=broad-except
        return 0, traceback.format_exc()

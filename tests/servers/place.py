# SPDX-License-Identifier: GPL-2.0-or-later
"""A mail tree, and the three ways in which servers use it: plain, through a mount elsewhere, through a mount on the
tree's own path."""

import contextlib
import os
import time

from daemon import until
from host import Maildex, acting_as
from trees import Tree

WAYS = ("plain", "mounted", "same")
TAG_NS = 10**6  # a shown mtime is at most that much older than the server's (law: rule 6)
CLOCK_REALTIME_COARSE = 5  # the clock that mtimes are taken from


def mtime_ns(path):
    return os.stat(path).st_mtime_ns


class Place:
    """with Place(kind) as place, place.used(way) as top: ..."""

    def __init__(self, kind="standard"):
        """kind: of the tree (trees.py)."""
        self.kind, self.stack = kind, contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.host = stack.enter_context(Maildex())
            self.elsewhere = self.host.mnt
            self.tree = Tree(self.host.made, self.kind)
            self.born_ns = time.time_ns() - 1
            fd = os.open(self.host.root, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            # From now on it is found below what is mounted on its path too.
            self.tree.top = f"/proc/{os.getpid()}/fd/{fd}"
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *args):
        return self.stack.__exit__(*args)

    @contextlib.contextmanager
    def used(self, way):
        """Yields the path where servers find the tree."""
        self.top = self.elsewhere if way == "mounted" else self.host.root
        if way == "plain":
            yield self.top
            return
        self.host.conf["mount"] = self.top
        self.host.start()
        self.host.fs_start()
        yield self.top
        self.host.fs_stop()
        self.host.stop()

    # -- others change it, below what is mounted

    def _halves(self, account, folders):
        return [self.tree.maildir(account, f, half) for f in folders for half in ("new", "cur")]

    def change(self, account, folders, action):
        """Runs action(), which changes these folders in the tree itself, so that servers can see it."""
        with acting_as(self.tree.uids[account]):
            self._change(account, folders, action)

    def _change(self, account, folders, action):
        halves = [p for p in self._halves(account, folders) if os.path.exists(p)]
        # A silent change in the moment of a change through the mount may be seen late, in large folders (README, "How
        # old a listing can be"); an opening ends that moment.
        for path in halves if self.host.fs else ():
            os.listdir(self._above(path))
        # The clock that makes mtimes moves on: two changes in one tick are one to a server that looks in between, also
        # on a plain tree.
        last = max(map(mtime_ns, halves), default=0)
        until("the clock to move", lambda: time.clock_gettime_ns(CLOCK_REALTIME_COARSE) > last)
        action()

    def _above(self, path):
        return path.replace(self.tree.top, self.top)

    def shown(self, account, folders):
        """Waits until a stat through the mount tells of the last change. It may be `revalidate` old, as on NFS."""
        with acting_as(self.tree.uids[account]):
            for low in self._halves(account, folders) if self.host.fs else ():
                up = self._above(low)
                until(f"{up} to show its time", lambda: 0 <= mtime_ns(low) - mtime_ns(up) < TAG_NS)

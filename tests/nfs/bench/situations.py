# SPDX-License-Identifier: GPL-2.0-or-later
"""The situations in which a login is measured. For each: what happens before it, and who does it.

A mailbox on plain NFS and its twin below maildexfs go through the same, one after the other, so that while one is
measured the other's changes settle and short caches end, as between any two logins of a day.
"""

import contextlib
import os
import time

from host import acting_as
from mailboxes import SIZE_LIST, VMAIL, WAYS, base, name
from sessions import login

# What the client's caches of attributes live at most (acregmax, acdirmax), by default.
ATTRIBUTES_S = 60
# Two logins of a mailbox are so far apart: more than maildexfs's `revalidate`.
# Nobody logs in that soon after a change: so long a listing may have to be made twice (the server's clock has ticks).
SETTLED_S = 0.2
APART_S = 1.2
ROUNDS = 3  # of a host that changes flags all the time

ORDER = ("first", "again", "expired", "delivery", "own", "flag", "moved", "steady")


class Pair:
    """The two mailboxes of one server, version and size."""

    def __init__(self, boxes, servers, others, server, log, watch=None, full=False):
        """log(pair, situation, way, cost, messages) is told of each login; watch(pair, situation, way): its context."""
        self.boxes, self.servers, self.others, self.log = boxes, servers, others, log
        self.watch = watch or (lambda *_: contextlib.nullcontext())
        self.server, self.protocol = server.split("-")
        self.number, self.full = 10, full
        # Logins until nothing of what was before costs any more: the first of a mount, and one behind it.
        self.unsettled = 2

    def _connect(self, box, protocol):
        who = box.home_of() if self.server == "courier" else box.user_of()
        return getattr(self.servers[self.server], protocol)(who)

    def _login(self, box):
        return login(self._connect(box, self.protocol), self.protocol)

    def _apart(self, box):
        time.sleep(max(0, box.busy_until + APART_S - time.monotonic()))

    def _measure(self, situation, prepare=lambda box: None, settle=False):
        for way in WAYS:
            prepare(self.boxes[way])
        time.sleep(SETTLED_S)
        for way in WAYS:
            box = self.boxes[way]
            self._apart(box)
            with self.watch(self, situation, way):
                cost, count = box.measured(self._login)
            self.log(self, situation, way, cost, count)
        self.unsettled = 0 if settle else 1

    def settle(self):
        """Logins that aren't counted: what those before have changed is known after them."""
        while self.unsettled:
            for box in self.boxes.values():
                self._apart(box)
                self._login(box)
                box.at_rest()
            self.unsettled -= 1

    def _next(self):
        self.number += 1
        return self.number

    def _own_flag(self, box, number):
        """As this host's IMAP server does it; for POP3, which cannot, as another program of this host."""
        if self.protocol == "imap":
            talk = self._connect(box, "imap")
            talk.imap("SELECT INBOX")
            talk.imap(f"UID STORE {number + 1} +FLAGS (\\Flagged)")
            talk.imap("LOGOUT")
            talk.close()
        else:
            cur = os.path.join(box.home_of(), "Maildir", "cur")
            with acting_as(VMAIL):
                os.rename(os.path.join(cur, name(number)), os.path.join(cur, f"{base(number)}:2,FS"))
        box.at_rest()

    # -- the situations

    def first(self):
        """Of Courier's POP3 server, only where that is told by full (mailboxes.SIZES_KNOWN)."""
        lists = [f"/export{box.path}/u/Maildir/{SIZE_LIST}" for box in self.boxes.values()]
        if os.path.exists(lists[0]):
            if not self.full:
                return
            for path in lists:
                os.unlink(path)
        self._measure("first")
        self.unsettled = 3  # new threads of a mount ask for permissions again

    def again(self):
        self.settle()
        self._measure("again", settle=True)

    def expired(self):
        self.settle()
        for box in self.boxes.values():
            time.sleep(max(0, box.busy_until + ATTRIBUTES_S + 1 - time.monotonic()))
        self._measure("expired", settle=True)

    def delivery(self):
        self.settle()
        self._measure("delivery", self.others.deliver)

    def own(self):
        self.settle()
        number = self._next()
        self._measure("own", lambda box: self._own_flag(box, number), settle=True)

    def _foreign(self, situation, change):
        number = self._next()
        self._measure(situation, lambda box: change(box, number), settle=True)

    def flag(self):
        self.settle()
        self._foreign("flag", self.others.flag)

    def moved(self):
        self.settle()
        self._foreign("moved", self.others.move)

    def steady(self):
        self.settle()
        for _ in range(ROUNDS):
            self._foreign("steady", self.others.flag)

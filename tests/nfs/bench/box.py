# SPDX-License-Identifier: GPL-2.0-or-later
"""One mailbox of the benchmark as one host sees it: on plain NFS, or through maildexfs over NFS. Each has an NFS mount
of its own (with caches of its own), so that its calls are counted apart.

Flow: with Box(...) as box: box.measured(action) -> Cost, again and again; others (Others) change it in between.
"""

import dataclasses
import os
import time

import calls
import nfsmount
from daemon import Client
from host import acting_as
from mailboxes import VMAIL, base, cell, name
from stack import Stack

TOP = "/srv/bench"
LOWER = "/srv/lower"
OTHERS = "/srv/others"
# Nothing was called for so long: the host is at rest. What maildexfs and maildexd do after a change they do
# within 50 ms.
REST_S = 0.3
STEP_S = 0.05
# The client tells the server every few seconds that it is still there, whatever anybody does.
LEASE = ("SEQUENCE", "RENEW")


@dataclasses.dataclass
class Cost:
    """Of one login."""

    ops: dict  # {kind: calls.Op}, when the host was at rest again
    behind: dict  # of these, what was called after the login had ended
    seconds: float
    told: dict  # what maildexfs counted meanwhile


class Box:
    def __init__(self, way, version, path, label, host="mf1", options=(), **conf):
        """path: below the export. label: a name of its own."""
        self.way, self.version, self.path, self.host = way, version, path, host
        self.options, self.conf = options, conf
        self.label = f"{way}-{label}"
        self.at = os.path.join(TOP, self.label)
        self.nfs = self.at if way == "plain" else os.path.join(LOWER, self.label)
        self.stack = None
        self.busy_until = 0.0  # CLOCK_MONOTONIC

    def __enter__(self):
        nfsmount.mount(self.host, self.version, self.path, self.nfs, *self.options)
        if self.way == "mount":
            os.makedirs(self.at, exist_ok=True)
            self.stack = Stack("/tmp", self.nfs, self.at, self.label, host=self.host, **self.conf)
            os.mkdir(os.path.join(self.stack.dir, "run"), 0o755)
            self.stack.start_maildexd()
            self.stack.start_maildexfs()
        return self

    def __exit__(self, *_):
        if self.stack:
            self.stack.stop()
        nfsmount.unmount(self.nfs)

    def home_of(self, user="u"):
        return os.path.join(self.at, user)

    def user_of(self, user="u"):
        """As Dovecot knows it (sessions.DOVECOT_CONF)."""
        return f"{user}@{self.label}"

    # -- what maildex tells by its own sockets

    def _status(self, suffix=""):
        with Client(os.path.join(self.stack.dir, "run", "maildexd.sock" + suffix)) as c:
            return c.status()

    def tells(self):
        return {k: int(v) for k, v in self._status(".fs").items() if v.isdigit()}

    def _idle(self):
        """Has maildexd nothing to do?"""
        if not self.stack:
            return True
        status = self._status()
        return status["queue.changes"] == "0" and status["scans.running"] == "0"

    # -- counting

    def called(self):
        """{kind: calls.Op} since the mount."""
        return {kind: op for kind, op in calls.read(self.nfs).items() if kind not in LEASE}

    def at_rest(self):
        """Waits until nothing is called any more; returns what was called until then since the mount."""
        while True:
            last, since = self.called(), time.monotonic()
            while time.monotonic() - since < REST_S:
                time.sleep(STEP_S)
                now = self.called()
                if now != last:
                    last, since = now, time.monotonic()
            # Asking may call too, so it is done when all is counted.
            if self._idle():
                self.busy_until = time.monotonic()
                return last

    def measured(self, action):
        """Runs action(self), a login; returns its Cost and what action returned."""
        told = self.tells() if self.stack else {}
        before = self.called()
        start = time.monotonic()
        result = action(self)
        seconds = time.monotonic() - start
        ended = self.called()
        after = self.at_rest()
        now = self.tells() if self.stack else {}
        grown = {k: v - told[k] for k, v in now.items() if v != told.get(k, v)}
        return Cost(calls.diff(before, after), calls.diff(ended, after), seconds, grown), result


class Others:
    """The other hosts, which have no maildex: they change a mailbox without telling anybody."""

    def __init__(self, version):
        self.version = version
        self.count = 0

    def __enter__(self):
        for host in ("mf2", "mi1"):
            nfsmount.mount(host, self.version, "/", os.path.join(OTHERS, host))
        return self

    def __exit__(self, *_):
        for host in ("mf2", "mi1"):
            nfsmount.unmount(os.path.join(OTHERS, host))

    def _maildir(self, host, box, user="u"):
        return f"{OTHERS}/{host}{box.path}/{user}/Maildir"

    def deliver(self, box, user="u"):
        """The mail-in host, as a delivery agent does."""
        self.count += 1
        new = f"{int(time.time())}.M{time.time_ns() // 1000 % 10**6}P{os.getpid()}Q{self.count}.mail-in9,S=62,W=65"
        path = self._maildir("mi1", box, user)
        with acting_as(VMAIL):
            with open(f"{path}/tmp/{new}", "xb") as f:
                f.write(b"From: a@example.org\r\nTo: b@example.net\r\nSubject: new\r\n\r\nnew\r\n")
                os.fsync(f.fileno())
            os.rename(f"{path}/tmp/{new}", f"{path}/new/{new}")

    def flag(self, box, number):
        """Another mail-fetch host."""
        path = self._maildir("mf2", box)
        with acting_as(VMAIL):
            os.rename(f"{path}/cur/{name(number)}", f"{path}/cur/{base(number)}:2,FS")

    def move(self, box, number):
        path = self._maildir("mf2", box)
        with acting_as(VMAIL):
            os.rename(f"{path}/cur/{name(number)}", f"{path}/.Archive/cur/{name(number)}")


def login_box(way, version, server, count, suffix="", options=()):
    """The mailbox of one row of the tables."""
    label = f"v{version}-{server}-{count}{suffix}"
    return Box(way, version, f"/{way}/v{version}/{cell(server, count)}", label, options=options)

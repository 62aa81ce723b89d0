# SPDX-License-Identifier: GPL-2.0-or-later
"""IDLE: a client hears of what happened elsewhere as soon as on a plain local directory, because maildexfs makes the
events of inotify that its server waits for. The servers' own polling is too far away to be what told.

`tests/run tests/servers/test_idle.py -n 0 -m full -rP` shows how long it took: medians of interleaved rounds."""

import contextlib
import itertools
import os
import statistics
import time

import pytest

from courier import Courier
from daemon import WAIT_S, until
from dovecot import Dovecot
from host import Maildex, acting_as
from talk import Account

UID = 2101
QUIET_S = 1.1  # maildexfs rings a half once a second
NEVER_S = 10 * WAIT_S
SERVERS = {
    # Dovecot looks every 30 s by itself, Courier every IMAP_IDLE_TIMEOUT seconds.
    "dovecot": lambda path, accounts: Dovecot(path, accounts, mailbox_idle_check_interval=f"{NEVER_S}s"),
    "courier": lambda path, accounts: Courier(
        path, accounts, IMAP_ENHANCEDIDLE="1", IMAP_IDLE_TIMEOUT=str(NEVER_S)
    ),
}
names = (f"18{i:08}.M1P1.idle" for i in itertools.count())


def make_home(path):
    for part in ("", "Maildir", "Maildir/new", "Maildir/cur", "Maildir/tmp"):
        os.mkdir(os.path.join(path, part), 0o700)
        os.chown(os.path.join(path, part), UID, UID)


def deliver(home):
    """As a delivery agent does it. Returns the path and when it was there."""
    name = next(names)
    tmp, new = (os.path.join(home, "Maildir", part, name) for part in ("tmp", "new"))
    with acting_as(UID):
        with open(tmp, "xb") as f:
            f.write(b"Subject: x\n\nx\n")
        os.rename(tmp, new)
    return new, time.monotonic()


def heard(talk, what):
    """Waits for an untagged answer; returns when it came."""
    while what not in (line := talk.line()):
        assert line.startswith(b"*"), line
    return time.monotonic()


class Idle:
    """One host, two homes, a session of the server in the plain one and in the other through the mount."""

    def __init__(self, maildex, stack, server):
        self.m = maildex
        for name in ("plain", "ann"):
            make_home(os.path.join(maildex.made, name))
        self.plain, self.low = maildex.low("plain"), maildex.low("ann")
        maildex.start()
        maildex.fs_start()
        until("the connection", lambda: maildex.fs_status()["maildexfs.maildexd"] == "connected")
        if maildex.conf.get("watch") == "inotify":
            until("all to be watched", lambda: self.status()["inotify.state"] == "watching")
        accounts = Account("plain", UID, self.plain), Account("ann", UID, maildex.up("ann"))
        server = stack.enter_context(SERVERS[server](os.path.join(maildex.dir, "server"), accounts))
        self.talks = [stack.enter_context(server.imap(a)) for a in accounts]

    def begin(self):
        for talk in self.talks:
            talk.imap("SELECT INBOX")
            talk.idle()

    def tell(self, path):
        with self.m.client() as c:
            c.notify(os.path.relpath(path, self.m.root))

    def status(self):
        with self.m.client() as c:
            return c.status()

    def rings(self):
        return self.m.count("rings.done")

    def calm(self):
        """Nothing rang for longer than a half is quiet after a ring."""
        seen = [self.rings(), time.monotonic()]

        def quiet():
            if self.rings() != seen[0]:
                seen[:] = [self.rings(), time.monotonic()]
            return time.monotonic() - seen[1] > QUIET_S

        until("rings to end", quiet)


@contextlib.contextmanager
def idling(server, **conf):
    with Maildex(**conf) as m, contextlib.ExitStack() as stack:
        yield Idle(m, stack, server)


def below(idle):
    return deliver(idle.low)


def below_with_hook(idle):
    path, when = deliver(idle.low)
    idle.tell(path)
    return path, when


def below_with_hook_for_the_maildir(idle):
    path, when = deliver(idle.low)
    idle.tell(os.path.dirname(os.path.dirname(path)))
    return path, when


def through_the_mount(idle):
    return deliver(idle.m.up("ann"))


# how it is delivered, `watch`, does it take a ring
WAYS = {
    "hook": (below_with_hook, "none", True),
    "hook-maildir": (below_with_hook_for_the_maildir, "none", True),
    "inotify": (below, "inotify", True),
    "mount": (through_the_mount, "none", False),
    "mount-and-inotify": (through_the_mount, "inotify", False),
}


@pytest.mark.parametrize("rounds", [2, pytest.param(15, marks=pytest.mark.full)])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", SERVERS)
def test_delivery(server, way, rounds):
    how, watch, rings = WAYS[way]
    took = [], []
    with idling(server, watch=watch) as idle:
        idle.begin()
        idle.calm()
        for n in range(1, rounds + 1):
            for which, act in enumerate((lambda: deliver(idle.plain), lambda: how(idle))):
                before = idle.rings()
                _, when = act()
                took[which].append(heard(idle.talks[which], b"* %d EXISTS" % n) - when)
                idle.calm()  # after each: Courier's FAM server works in steps of about a second
                assert (idle.rings() > before) == (rings and which == 1)
        for talk in idle.talks:
            assert b" OK " in talk.done()[-1]
    plain, mounted = (1000 * statistics.median(t) for t in took)
    print(
        f"{server}, {way}: EXISTS after {plain:.0f} ms on a plain directory, {mounted:.0f} ms on the mount "
        f"({mounted - plain:+.0f} ms; {', '.join(f'{1000 * (b - a):+.0f}' for a, b in zip(*took))})"
    )


def change(folder, what):
    """To the one message that is there."""
    (name,) = os.listdir(folder)
    path = os.path.join(folder, name)
    if what == "flag":
        os.rename(path, path.split(":2,")[0] + ":2,FS")
    else:
        os.unlink(path)


@pytest.mark.nfs
@pytest.mark.parametrize("server", SERVERS)
def test_flags_and_removal_elsewhere(server):
    """What another host's server does in cur/."""
    with idling(server) as idle:
        idle.begin()
        deliver(idle.plain)
        idle.tell(deliver(idle.low)[0])
        for talk in idle.talks:
            heard(talk, b"* 1 EXISTS")
        cur = [os.path.join(home, "Maildir/cur") for home in (idle.plain, idle.low)]
        with acting_as(UID):
            until("the message in cur/", lambda: all(map(os.listdir, cur)))
        for what, answer in (("flag", b"* 1 FETCH"), ("remove", b"* 1 EXPUNGE")):
            idle.calm()
            before = idle.rings()
            for folder in cur:
                with acting_as(UID):
                    change(folder, what)
            idle.tell(cur[1])
            for talk in idle.talks:
                heard(talk, answer)
            assert idle.rings() > before

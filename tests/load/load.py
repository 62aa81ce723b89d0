# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads, in any size; what must hold at the end of each is in `finish`. Each returns its figures."""

import contextlib
import os
import re
import time

import busy
from audit import audit
from busy import Busy
from crowd import Crowd, Place, prepare, rss_bytes, work
from daemon import until
from deliver import Deliveries
from dovecot import Dovecot
from many import ManyCourier

SERVERS = {"courier": ManyCourier, "dovecot": Dovecot}
TROUBLE = re.compile(r": (warning|error): ")
# Memory of maildexfs at the end. A live folder is its listing (live.bytes counts that, whole chunks and the table by
# message) and a copy of what changes while a handle still reads the state before: no more than one beside it. A file
# that the kernel knows is a node with its name: 400 bytes with what malloc adds. The rest does not grow with mailboxes:
# `threads` (64) workers with a buffer of up to 1 MB each.
NODE_BYTES, OF_ITS_OWN_BYTES = 400, 64 << 20


class Load:
    """A server on a host, deliveries, and those who work; with Load(...) as load."""

    def __init__(self, name, mailboxes, per_second=50, plain=False, fill=None):
        """fill: makes messages before anything runs: fill(place)."""
        self.place = Place(mailboxes, plain=plain)
        self.name, self.per_second, self.fill = name, per_second, fill
        self.stack, self.workers, self.listened, self.sessions = contextlib.ExitStack(), [], [], 0

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.place)
            if self.fill:
                self.fill(self.place)
            self.place.open()
            self.deliveries = stack.enter_context(Deliveries(self.place, self.place.accounts, self.per_second))
            directory = os.path.join(self.place.dir, "server")
            self.server = stack.enter_context(SERVERS[self.name](directory, self.place.accounts))
            self.ledgers = prepare(self.server, self.place.accounts)
            self.before = {} if self.place.plain else self.place.fs_status()
            self.rss_before = 0 if self.place.plain else rss_bytes(self.place.fs.pid)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *args):
        return self.stack.__exit__(*args)

    def busy(self, count):
        """More workers, spread over the mailboxes."""
        for _ in range(count):
            n = len(self.workers)
            self.workers.append(Busy(self.server, self.ledgers[n % len(self.ledgers)], f"w{n:02}"))

    def idle(self, count):
        """Sessions in IDLE, logged in by a few threads."""
        listening = [Busy(self.server, self.ledgers[i % len(self.ledgers)], f"idle{i}") for i in range(count)]
        crowd = Crowd()
        for part in range(4):
            crowd.add(lambda over, some: [_listen(s) for s in some if not over.is_set()], listening[part::4])
        crowd.run()
        self.listened += listening

    def run(self, seconds):
        crowd = Crowd()
        for w in self.workers:
            crowd.add(work, w)
        self.deliveries.begin()
        start = time.monotonic()
        crowd.run(seconds)
        self.took_s = time.monotonic() - start

    def finish(self):
        """Nothing is lost, doubled or told twice; index and disk are equal; returns the figures."""
        delivered, messages = self.deliveries.stop(), 0
        for ledger in self.ledgers:
            account = ledger.account
            maildir = self.place.low(account.name, "Maildir")
            messages += audit(self.server, ledger, self.workers, delivered[account.name], maildir)
        self._wake(delivered)
        figures = {
            "sessions": self.sessions + len(self.workers) + len(self.listened),
            "commands": sum(w.commands for w in self.workers),
            "deliveries": sum(map(len, delivered.values())),
            "seconds": round(self.took_s, 1),
            "messages left": messages,
        }
        return figures if self.place.plain else {**figures, **self._maildex(messages)}

    def _wake(self, delivered):
        """Who was idle all the time has the same picture as who comes now."""
        now = {}
        for s in self.listened:
            name = s.ledger.account.name
            if name not in now:
                fresh = Busy(self.server, s.ledger, "fresh")
                fresh.login()
                now[name] = fresh.exists
                fresh.logout()
            for line in s.talk.done():
                s._count(line)  # pylint: disable=protected-access
            s.command("NOOP")
            assert s.exists == now[name] >= len(delivered[name]), f"{s}: {s.exists} messages, {now[name]}"
            s.logout()

    def _maildex(self, messages):
        self._verified()
        for file in (self.place.fslog, self.place.log):
            with open(file, encoding="utf-8") as f:
                trouble = [line for line in f if TROUBLE.search(line)]
            assert not trouble, trouble
        status, rss = self.place.fs_status(), rss_bytes(self.place.fs.pid)
        live = int(status["maildexfs.live.bytes"])
        bound = self.rss_before + 2 * live + NODE_BYTES * (messages + self._files_made()) + OF_ITS_OWN_BYTES
        assert rss <= bound, f"maildexfs has {rss} bytes, {self.rss_before} before; live folders {live}; bound {bound}"
        names = {
            "openings of new/ and cur/": "opendirs",
            "lower listings": "lower.listings",
            "own changes": "own.changes",
        }
        counts = {k: int(status["maildexfs." + v]) - int(self.before["maildexfs." + v]) for k, v in names.items()}
        memory = {"live folders MB": live, "maildexfs MB": rss, "bound MB": bound}
        return {**counts, **{k: round(v / 1e6, 1) for k, v in memory.items()}}

    def _files_made(self):
        """All that came by and went again: the kernel may still know the names."""
        return sum(w.made for w in self.workers) * 3 + sum(self.deliveries.counts) * 2

    def _verified(self):
        said = []

        def equal():
            code, text = self.place.ctl("verify", "--all")
            said[:] = [text]
            return code == 0

        try:
            until("index and disk to be equal", equal)
        except AssertionError:
            raise AssertionError(said[0]) from None


def _listen(session):
    session.login()
    for line in session.talk.idle():
        session._count(line)  # pylint: disable=protected-access


# -- the loads


def busy_sessions(server, sessions, mailboxes, seconds, idle=0, **options):
    """Busy ones on a few mailboxes, and idle ones beside them."""
    with Load(server, mailboxes, **options) as load:
        load.busy(sessions)
        load.idle(idle)
        load.run(seconds)
        return load.finish()


def webmail(server, messages, users, seconds, **options):
    """Each click of each user is a session of its own on one large mailbox: log in, select, the newest 50, log out."""

    def fill(place):
        for i in range(messages):
            name = f"{1600000000 + i}.M{i}P1.old:2,S"
            data = f"From: a@example.org\nSubject: {i}\nX-Id: old{i}\n\nx\n".encode()
            path = os.path.join(place.made, place.accounts[0].name, "Maildir/cur", name)
            with open(path, "xb") as f:
                f.write(data)
            os.chown(path, place.accounts[0].uid, place.accounts[0].uid)

    with Load(server, 1, fill=fill, **options) as load:
        crowd, counts = Crowd(), []
        for i in range(users):
            crowd.add(_clicks, load, messages, i, counts)
        load.deliveries.begin()
        start = time.monotonic()
        crowd.run(seconds)
        load.took_s = time.monotonic() - start
        load.sessions = len(counts)
        load.workers.append(_Old(load.ledgers[0], messages))
        figures = load.finish()
        return {**figures, "commands": sum(counts)}


class _Old:
    """Owner of what was there before."""

    def __init__(self, ledger, count):
        self.ledger, self.made, self.commands = ledger, 0, 0
        # Their UIDs are the server's matter.
        self.mine = {"INBOX": {-i: busy.Mine(f"old{i}", {"\\Seen"}) for i in range(count)}}
        ledger.seen.update(("INBOX", f"old{i}") for i in range(count))


def _clicks(over, load, messages, number, counts):
    n = 0
    while not over.is_set():
        there = messages + load.deliveries.counts[0]
        session = Busy(load.server, load.ledgers[0], f"click{number}-{n}")
        session.login()
        assert session.exists >= there, f"{session}: {session.exists} messages, {there} were there"
        first = session.exists - 49
        lines = session.command(f"FETCH {first}:{session.exists} (UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Id)])")
        found = busy.fetched(lines)
        assert len(found) == 50, f"{session}: {len(found)} of 50"
        for uid, line in found.items():
            session.ledger.is_at("INBOX", uid, busy.X_ID.search(line)[1].decode())
        session.logout()
        counts.append(session.commands)
        n += 1

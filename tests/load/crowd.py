# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with many mailboxes, and many who work on them at once."""

import os
import subprocess
import threading
import time

import busy
from daemon import BUILD, WAIT_S, make_maildir
from host import Maildex, acting_as
from talk import SAID_LINES, Account

UID = 3000  # of the first account


class Place(Maildex):
    """A host with maildexd and maildexfs, and accounts with a Maildir each; their homes are on the mount. plain:
    without any of it, to see what a server does by itself."""

    def __init__(self, accounts, plain=False, **conf):
        super().__init__(**conf)
        self.plain, top = plain, self.low if plain else self.up
        self.accounts = [Account(f"u{i:02}", UID + i, top(f"u{i:02}")) for i in range(accounts)]
        for a in self.accounts:
            home = os.path.join(self.made, a.name)
            make_maildir(os.path.join(home, "Maildir"), uid=a.uid)
            os.chown(home, a.uid, a.uid)

    def open(self, **options):
        if not self.plain:
            self.start()
            self.fs_start(**options)
        return self

    def same(self, account, *parts):
        with acting_as(account.uid):
            return super().same(account.name, *parts)

    def ctl(self, *args):
        """maildexctl; returns (exit code, what it printed)."""
        done = subprocess.run(
            [os.path.join(BUILD, "maildexctl"), *self.command()[1:3], *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=WAIT_S * 5,
            check=False,
            text=True,
        )
        return done.returncode, done.stdout


def prepare(server, accounts):
    """Learns what it can, and makes the second folder of each account. Returns the accounts' ledgers."""
    ledgers = [busy.Ledger(a) for a in accounts]
    for ledger in ledgers:
        session = busy.Busy(server, ledger, "prepare")
        session.login()
        server.capability = b"".join(session.command("CAPABILITY"))
        session.command(f"CREATE {busy.server_folder(server, 'Other')}")
        session.logout()
    return ledgers


class Crowd:
    """Threads that work until the time is over; the first that fails ends all, and is what the test fails with."""

    def __init__(self):
        self.threads, self.failed, self.over = [], [], threading.Event()

    def add(self, work, *args):
        """work(over, *args), over: an event that ends it."""
        self.threads.append(threading.Thread(target=self._guard, args=(work, *args)))

    def _guard(self, work, *args):
        try:
            work(self.over, *args)
        except BaseException as e:  # pylint: disable=broad-except
            self.failed.append(e)
            self.over.set()

    def run(self, seconds=None):
        """seconds: after which they are to end; else they do by themselves."""
        for t in self.threads:
            t.start()
        if seconds is not None:
            self.over.wait(seconds)
            self.over.set()
        for t in self.threads:
            t.join()
        if self.failed:
            raise self.failed[0]


def work(over, worker, steps=None):
    """A busy session from login to logout: until it is over, or so many steps."""
    worker.login()
    try:
        while not over.is_set() and steps != 0:
            worker.step()
            steps = None if steps is None else steps - 1
    except AssertionError as e:
        said = b"".join(worker.talk.said[-SAID_LINES:]) if worker.talk else b""
        e.add_note("Said last:\n" + said.decode("utf-8", "backslashreplace"))
        raise
    worker.logout()


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def wait_until(moment):
    """A moment of time.monotonic()."""
    time.sleep(max(0, moment - time.monotonic()))

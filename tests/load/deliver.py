# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that delivers at a steady rate while others read: silently below the mount, as another host does, through
the mount, and below it with a word to maildexd. By turns, to each account by turns."""

import contextlib
import multiprocessing
import os
import subprocess
import time

import busy
from daemon import BUILD

CONTEXT = multiprocessing.get_context("fork")
NOTIFY = os.path.join(BUILD, "maildex-notify")


@contextlib.contextmanager
def owner(account):
    os.setegid(account.uid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


class Deliveries:
    """start() before there are threads; stop() returns {account's name: the messages' names}."""

    def __init__(self, place, accounts, per_second):
        self.place, self.accounts, self.per_second = place, accounts, per_second
        self.counts = CONTEXT.Array("q", len(accounts))  # what each has got by now
        self.mine, self.process = None, None

    def start(self):
        self.mine, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=self._main, args=(theirs,))
        self.process.start()
        theirs.close()
        return self

    def begin(self):
        self.mine.send("begin")

    def stop(self):
        self.mine.send("end")
        names = self.mine.recv()
        self.process.join()
        return names

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.mine.close()

    def _main(self, pipe):
        names = {a.name: [] for a in self.accounts}
        os.nice(-10)  # the rate is kept however busy the others are
        pipe.recv()
        start, n = time.monotonic(), 0
        while not pipe.poll(max(0, start + n / self.per_second - time.monotonic())):
            i = n % len(self.accounts)
            # The way changes with each round, so that each account meets all.
            self._deliver((n // len(self.accounts) + i) % 3, self.accounts[i], n)
            names[self.accounts[i].name].append(f"d{n}")
            self.counts[i] += 1
            n += 1
        pipe.send(names)

    def _deliver(self, way, account, n):
        way = 0 if self.place.plain else way
        top = (self.place.up if way == 1 else self.place.low)(account.name, "Maildir")
        name = f"{int(time.time())}.M{n}P{os.getpid()}.delivered"
        tmp, new = os.path.join(top, "tmp", name), os.path.join(top, "new", name)
        with owner(account):
            with open(tmp, "xb") as f:
                f.write(busy.message(f"d{n}"))
            os.link(tmp, new)
            os.unlink(tmp)
        if way == 2:
            subprocess.run([NOTIFY, *self.place.command()[1:3], new], check=True)

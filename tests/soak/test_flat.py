# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing grows with what was done: MAILDEX_SOAK_OPS (1,000,000) operations, and MAILDEX_SOAK_S (3600) seconds of them.

Eight sessions of four users (session.py) work in LIVES lives. In each, forty mailboxes are made, worked in, looked at and
deleted, all through the mount; then the kernel is made to forget them. Of the empty tree maildexfs may know no more nodes,
and both programs may have no more descriptors open, than at the start; and their memory must not grow from life to life
(held.py). With ASan, LeakSanitizer looks at both when they end: an exit code of 0 says that it found nothing."""

import os
import shutil
import time

import pytest

from daemon import WAIT_S, make_maildir, until
from held import MEMORY_SAYS_SOMETHING, all_gone, assert_flat, forget, held
from host import Maildex, ls
from process import Process
from session import HALVES, begin, work

OPERATIONS = int(os.environ.get("MAILDEX_SOAK_OPS", "1000000"))
SECONDS = float(os.environ.get("MAILDEX_SOAK_S", "3600"))
LIVES = 12
ROUND_S = WAIT_S / 3  # between two looks at what is held
FIRST = 2000  # operations before the start
ENOUGH = 500000  # operations until memory that is kept for use again has all been taken
SESSIONS, USERS, BOXES, FIRST_UID, THREADS = 8, 4, 40, 2000, 8
pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]


class Soak:
    def __init__(self, m):
        self.m, self.done, self.busy, self.empty, self.sessions = m, 0, [], [], []
        m.conf.update(
            cache_bytes="256K", window_min=150, confirm="1s", scrub_interval="5s", threads=THREADS, log="info"
        )
        m.start()
        m.fs_start()
        until("both to be connected", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")
        self.start = held(m)

    def __enter__(self):
        for n in range(SESSIONS):
            p, uid = Process(), FIRST_UID + n % USERS
            self.sessions.append(p)
            p(os.setgroups, [])
            p(os.setresgid, uid, uid, uid)
            p(os.setresuid, uid, uid, uid)
        self.live(FIRST, float("inf"))
        forget()
        time.sleep(1)
        now = held(self.m)  # with what is opened once, when it is first needed
        self.start.fs.fds, self.start.daemon.fds = now.fs.fds, now.daemon.fds
        self.all_gone()
        return self

    def __exit__(self, *_):
        for p in self.sessions:
            p.stop()

    def live(self, operations, seconds):
        """Until there were so many more, or for so long."""
        for b in range(BOXES):
            make_maildir(self.m.up(f"u{b}"), cur=b * 6, uid=FIRST_UID + b % USERS)
        for n, p in enumerate(self.sessions):
            boxes = [f"u{b}" for b in range(BOXES) if b % USERS == n % USERS]
            p(begin, n + SESSIONS * len(self.empty), self.m.up(), self.m.low(), self.m.socket, boxes)
        until_done, end = self.done + operations, time.monotonic() + seconds
        while self.done < until_done and time.monotonic() < end:
            self.round(until_done - self.done, min(end - time.monotonic(), ROUND_S))
        self.look()
        for b in range(BOXES):
            shutil.rmtree(self.m.up(f"u{b}"))
        assert not os.listdir(self.m.low())

    def all_gone(self):
        self.empty.append(all_gone(self.m, self.start))
        print(f"{self.done} operations; at work: {self.busy[-1]}\n  all gone: {self.empty[-1]}", flush=True)

    def round(self, operations, seconds):
        for p in self.sessions:
            p.begin(work, operations / SESSIONS, seconds)
        for done, wrong in [p.end() for p in self.sessions]:
            assert not wrong, wrong
            self.done += done
        self.busy.append(held(self.m))
        assert self.busy[-1].fs.threads <= self.start.fs.threads + THREADS

    def look(self):
        """All listings are right."""
        for top, folders, _ in os.walk(self.m.low()):
            for half in HALVES if "cur" in folders else ():
                path = os.path.relpath(os.path.join(top, half), self.m.low())
                until(f"{path} to be right", lambda p=path: ls(self.m.up(p)) == ls(self.m.low(p)))

    def judge(self):
        """Returns figures."""
        empty, busy = self.empty, self.busy
        if MEMORY_SAYS_SOMETHING and self.done >= ENOUGH:
            assert_flat("maildexfs", [h.fs.anon_kb for h in empty])
            assert_flat("maildexd", [h.daemon.anon_kb for h in empty])
        return {
            "operations": self.done,
            "folders evicted": busy[-1].evicted,
            "nodes": f"{max(h.nodes for h in busy)}, after each of {LIVES} lives {empty[-1].nodes}",
            "descriptors of maildexfs": descriptors([h.fs for h in (self.start, *busy, empty[-1])]),
            "of maildexd": descriptors([h.daemon for h in (self.start, *busy, empty[-1])]),
            "threads": f"{busy[-1].fs.threads}, {busy[-1].daemon.threads}",
            "KB of maildexfs after each life": [h.fs.anon_kb for h in empty],
            "KB of maildexd": [h.daemon.anon_kb for h in empty],
        }


def descriptors(processes):
    """At the start, at most, at the end."""
    open_ = [p.fds.total() for p in processes]
    return f"{open_[0]}, {max(open_)}, {open_[-1]} (and {processes[-1].index_fds} of the index)"


def soak(operations, seconds, figures):
    with Maildex() as m:
        with Soak(m) as s:
            for _ in range(LIVES):
                s.live(operations / LIVES, seconds / LIVES)
                s.all_gone()
        m.fs_stop()
        m.stop()
        figures(s.judge())


def test_a_million_operations(figures):
    soak(OPERATIONS, float("inf"), figures)


def test_an_hour(figures):
    soak(float("inf"), SECONDS, figures)

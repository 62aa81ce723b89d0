# SPDX-License-Identifier: GPL-2.0-or-later
"""The oracle: each mount's listings beside the disk, by the law (design 3) and the table of what may be late (3.2). What it
excuses is record.py's; here nothing is."""

import collections
import json
import os
import subprocess
import time
from errno import ENOENT, ESTALE

from daemon import BUILD, WAIT_S
from host import DT_REG, getdents_all, opened
from record import message_of
from world import Wrong

REST_S = 20  # until the index follows, on a busy machine


def listing(fd, size=32768):
    """[(inode, type, name)] without the dots."""
    return [(ino, kind, os.fsdecode(name)) for ino, _, kind, name in getdents_all(fd, size) if name not in (b".", b"..")]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)


class Oracle:
    def __init__(self, world):
        self.w = world

    def wrong(self, rule, host, half, text):
        excused = {m: round(t - time.monotonic(), 3) for m, t in self.w.records.half(half).excused[host].items()}
        raise Wrong(f"{rule}: host {host}, {'/'.join(half)}: {text}; excuses: {excused}")

    # -- one listing

    def judge(self, host, half, listed, before, after, when):
        """listed: [(inode, type, name)]; before, after: {name: inode} below when it began and ended (at `when`)."""
        names = [e[2] for e in listed]
        twice = sorted(n for n, c in collections.Counter(names).items() if c > 1)
        if twice:
            self.wrong("doubled", host, half, f"listed twice: {twice}")
        self._one_name(host, half, names, before, after)
        lag = lambda m: self.w.records.may_lag(host, half, m, when)  # noqa: E731
        shown = {message_of(n) for n in names}
        here, there = ({message_of(n) for n in d} for d in (before, after))
        vanished = sorted(self.w.records.half(half).present[host] & here & there - shown)
        if vanished:
            self.wrong("vanished", host, half, f"there all the time, listed before, and now not: {vanished}")
        missing = sorted(m for m in here & there if m not in shown and not lag(m))
        if missing:
            self.wrong("incomplete", host, half, f"missing: {missing}")
        ghosts = sorted(n for n in names if n not in before and n not in after and not lag(message_of(n)))
        if ghosts:
            self.wrong("ghost", host, half, f"not on the disk: {ghosts}; there: {sorted(after)}")
        if before == after:
            self._own(host, half, names)
            self.w.records.listed(host, half, names)
        for ino, kind, name in listed:
            if kind != DT_REG:
                self.wrong("type", host, half, f"{name} has d_type {kind}")
            if ino not in (before.get(name, ino), after.get(name, ino)) and not lag(message_of(name)):
                self.wrong("identity", host, half, f"{name} is listed with inode {ino}, is {after.get(name)}")

    def _one_name(self, host, half, names, before, after):
        count = [collections.Counter(map(message_of, d)) for d in (names, before, after)]
        two = sorted(m for m, c in count[0].items() if c > max(1, count[1][m], count[2][m]))
        if two:
            self.wrong("two names", host, half, f"{[n for n in names if message_of(n) in two]}")

    def _own(self, host, half, names):
        for message, own in self.w.records.half(half).own[host].items():
            shown = {n for n in names if message_of(n) == message}
            if shown != own:
                self.wrong("own write", host, half, f"{message}: listed {shown}, this host left {own}")

    # -- one half at one host

    def check(self, host, half, sample=2):
        """An opening, as a server that remembers nothing makes it; the disk is at rest meanwhile."""
        h, when = self.w.hosts[host], time.monotonic()
        if not h.m.fs:
            return None
        disk = self.w.on_disk(half)
        try:
            with h.acting():
                shown = os.stat(h.up(*half)).st_mtime_ns
                with opened(h.up(*half)) as fd:
                    listed = listing(fd)
                again = os.stat(h.up(*half)).st_mtime_ns
        except OSError as e:
            self._refused(host, half, e, when)
            return None
        if self.w.records.may_be_another(host, half[0], when):
            return None
        if half not in self.w.halves():
            self.wrong("folder", host, half, "a folder that is gone is listed")
        self.judge(host, half, listed, disk, disk, when)
        self.w.records.looked(host, half, when)
        if shown == again:
            self._mtime(host, half, shown, frozenset(e[2] for e in listed))
        self._messages(host, half, disk, listed, sample)
        return {e[2] for e in listed}

    def _refused(self, host, half, e, when):
        if e.errno in (ENOENT, ESTALE) and (half not in self.w.halves() or self.w.records.may_be_another(host, half[0], when)):
            return
        self.wrong("refused", host, half, repr(e))

    def _mtime(self, host, half, shown, names):
        """Law 4: a time that was shown with one listing, before and after it, is shown with no other, at no host."""
        other = self.w.records.half(half).shown.setdefault(shown, (names, host))
        if other[0] != names and not self.w.records.came_again(half, shown):
            self.wrong("mtime", host, half, f"{shown} is shown with {sorted(names)}; with {sorted(other[0])} at host {other[1]}")
        low = self.w.stamps.of(self.w.low(*half))
        disk = self.w.on_disk(half)
        if shown == low[1] and names != frozenset(disk) and self.w.records.half(half).stood.get(low, [()])[0] == {frozenset(disk)}:
            self.wrong("mtime", host, half, f"the server's own {shown} is shown with {sorted(names)}")

    def _messages(self, host, half, disk, listed, sample):
        """Law 5, for a few."""
        h = self.w.hosts[host]
        for _, _, name in sorted(listed, key=lambda e: hash((e[2], len(disk))))[:sample]:
            when = time.monotonic()
            r = self.w.records
            if name not in disk or r.name_may_lag(half, name, when) or r.may_lag(host, half, message_of(name), when):
                continue
            try:
                with h.acting():
                    above = os.stat(h.up(*half, name))
                    with open(h.up(*half, name), "rb") as f:
                        text = f.read()
                        inside = os.fstat(f.fileno())
            except OSError as e:
                self.wrong("message", host, half, f"{name} is listed and there, and: {e!r}")
            below = os.stat(self.w.low(*half, name))
            with open(self.w.low(*half, name), "rb") as f:
                wanted = f.read()
            if (above.st_ino, inside.st_ino) != (below.st_ino,) * 2 or (above.st_size, above.st_uid) != (below.st_size, below.st_uid):
                self.wrong("identity", host, half, f"{name}: {above}, {inside}; below {below}")
            if text != wanted:
                self.wrong("content", host, half, f"{name}: {text!r}, below {wanted!r}")

    # -- a server that remembers: it lists only where the time that it is shown is not the one that it has

    def poll(self, host, half):
        h, when = self.w.hosts[host], time.monotonic()
        if not h.m.fs or half not in self.w.halves():
            return
        disk = self.w.on_disk(half)
        try:
            with h.acting():
                shown = os.stat(h.up(*half)).st_mtime_ns
                time_of, names, late = h.remembers.get(half, (None, None, False))
                # A time that came late, as on NFS, and that a half which was set back has again, is no time of that listing.
                again = self.w.records.came_again(half, shown) or (late and self._is_own(half, shown))
                skips = time_of == shown and not again
                if not skips:
                    with opened(h.up(*half)) as fd:
                        names = {e[2] for e in listing(fd)}
                    h.remembers[half] = (shown, names, self._is_late(half, shown))
        except OSError as e:
            self._refused(host, half, e, when)
            return
        if self.w.records.may_be_another(host, half[0], when):
            h.remembers.pop(half, None)
            return
        self.w.count("poll: skipped" if skips else "poll: listed")
        if not skips:
            self.w.records.looked(host, half, when)
        if late and again:
            self.w.count("poll: a late time that came again")
        self._remembered(host, half, names, disk, when, skips)

    def _is_own(self, half, shown):
        return shown == self.w.stamps.of(self.w.low(*half))[1]

    def _is_late(self, half, shown):
        """Is it a time that the server had, and has no more?"""
        return not self._is_own(half, shown) and shown in self.w.records.half(half).mtimes

    def _remembered(self, host, half, names, disk, when, skips):
        """A time that two states of the directory share tells nobody that there are two, with maildex or without: until the
        tick is over and somebody opens it."""
        r, lag = self.w.records, self.w.revalidate + 0.03 if skips else 0
        unopened = r.half(half).unopened[host] if skips else {}
        for message in sorted({message_of(n) for n in set(names) ^ set(disk)}):
            late = r.may_lag(host, half, message, when) or r.half(half).foreign[host].get(message, -1000) + lag > when
            late = late or message in unopened
            if not late or message in r.half(half).own[host]:
                self.wrong(
                    "unseen" if skips else "incomplete", host, half,
                    f"a server that remembers has {sorted(names)}, there: {sorted(disk)}, it is about {message}",
                )  # fmt: skip

    # -- at rest

    def rest(self, final=False):
        """All that may be late is over: all is equal."""
        w = self.w
        for h in w.hosts:
            h.m.faults.clear()
            h.wakes()
            if not h.m.process:
                w.start_maildexd(h.number)
            h.connected()
        time.sleep(max(0, w.records.latest - time.monotonic(), w.revalidate + 0.05))
        for number in sorted(w.records.unsure):
            self._rebuild(w.hosts[number])
            w.records.rebuilt(number)
        self._own_stamps()
        for h in w.hosts:
            for half in w.halves():
                self.poll(h.number, half)
                self.check(h.number, half, sample=4)
                self.poll(h.number, half)
            for half in w.halves():
                self._proven(h, half)
        for h in w.hosts:
            self._index(h, final)
        w.count("rest")

    def _own_stamps(self):
        """The stamps that we count with are those that the mirror shows: else it is this test that is wrong."""
        for h in self.w.hosts:
            for half in self.w.halves():
                with opened(h.m.low(*half)) as fd:
                    st = os.fstat(fd)
                assert self.w.client_keeps or self.w.stamps.of(self.w.low(*half)) == (st.st_ctime_ns, st.st_mtime_ns)

    def _proven(self, h, half):
        """Speed comes back by itself: the server's own time is shown again, and nothing is listed below for it."""
        if any(at + back > time.time_ns() for at, back in self.w.stamps.steps):
            return  # until the server's clock is again where it was, nobody knows when a stamp has settled
        if self.w.stamps.maybe_twice(self.w.stamps.of(self.w.low(*half))):
            return  # and what it went through twice is shown with a time of its own
        end = time.monotonic() + REST_S
        while True:
            self.check(h.number, half)
            with h.acting():
                if os.stat(h.up(*half)).st_mtime_ns == self.w.stamps.of(self.w.low(*half))[1]:
                    return
            if time.monotonic() > end:
                self.wrong("unproven", h.number, half, "the server's own mtime is not shown again")
            time.sleep(0.02)

    def _index(self, h, final):
        """What the index claims is right. A row that knows that it is behind is no lie; after a rebuild none is behind."""
        if final:
            self._rebuild(h)
        end = time.monotonic() + REST_S
        while True:
            done = run([*self._ctl(h), "verify", "--all", "--json"])
            wrong = [d for d in json.loads(done.stdout)["differences"] if d["claimed"] or final]
            if not wrong:
                break
            if time.monotonic() > end:
                raise Wrong(f"index: host {h.number}: {wrong}")
            time.sleep(0.05)
        self.counters(h)

    def _rebuild(self, h):
        done = run([*self._ctl(h), "rebuild", "--all"])
        assert done.returncode == 0, done

    @staticmethod
    def _ctl(h):
        return [os.path.join(BUILD, "maildexctl"), "-c", h.m.command()[2]]

    def counters(self, h):
        """No row that claimed to be right was found wrong (rule 9)."""
        if not h.m.process or h.stopped or h.number in self.w.records.unsure:
            return
        with h.m.client() as c:
            wrong = c.status()["scrub.repaired_other"]
        if wrong != "0":
            raise Wrong(f"scrub: host {h.number}: {wrong} rows claimed to be right and were not:\n{h.m.logged()[-3000:]}")


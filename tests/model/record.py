# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened to each half of a world, and what of it a host may still not show (design 3.2). An excuse is for one message,
at one host, until one moment; it comes from one of two facts only, both measured at the change itself:

- the change left the stamp that the server shows as it was: another change came before it in the same tick (`settle`; at a
  host whose programs were started since the server's clock was set back, until the half changes again or is rebuilt: as far
  as they can know the tick is long over);
- it was made from elsewhere while own changes of that host went on in a cur/ of window_min names or more: from just before
  them until the next opening, at most 100 ms behind them (`confirm`).

Names that the kernel may have cached (`revalidate`) are kept apart: they excuse what a name leads to, never a listing."""

import collections
import contextlib
import os
import threading
import time

from host import base


class Nothing(Exception):
    """The operation found nothing to do."""


SETTLE_S, SETTLE_SECONDS_S = 0.1, 2  # lib/mail/stamp.c
BURST_LATE_S = 0.1  # fs/live.h, LIVE_BURST_LATE_NS
SLACK_S = 0.03  # two clocks, and the way from the change to our clock
CONFIRM_LATE_S = 2  # a background job on a busy machine
SECOND = 10**9
NOTICED_NS = 30 * SECOND
FOR_GOOD = float("inf")
WINDOWED = ("cur",)


def message_of(name):
    return base(os.fsencode(name)).decode()


class Stamps:
    """What the server shows: real times, set back by clock steps, rounded to ticks, rolled back."""

    def __init__(self, faults):
        self.tick_ns, self.sized = faults["tick_ms"] * 1000000, faults["sized"]
        self.steps, self.rolled, self.rolls = [], {}, []

    def clock_back(self, at_ns, back_ns):
        self.steps.append((at_ns, back_ns))

    def roll_back(self, path, real_ctime_ns, stamp):
        self.rolled[os.stat(path).st_ino] = (real_ctime_ns, stamp)
        self.rolls.append(time.time_ns())

    def maybe_twice(self, stamp):
        """May a host think that the clock was set back over this time? It may have noticed late, and a directory that was
        rolled back looks as if."""
        return any(stamp[0] <= at + NOTICED_NS for at in [at for at, _ in self.steps] + self.rolls)

    def _shown(self, ns):
        ns -= sum(back for at, back in self.steps if ns >= at)
        return ns - ns % self.tick_ns if self.tick_ns else ns

    def of(self, path):
        """(ctime, mtime) of a directory; None: there is none. Not the size, where it counts entries: a host must have learnt
        from listings first that it does."""
        try:
            st = os.stat(path)
        except FileNotFoundError:
            return None
        real, stamp = self.rolled.get(st.st_ino, (None, None))
        if real == st.st_ctime_ns:
            return stamp
        return (self._shown(st.st_ctime_ns), self._shown(st.st_mtime_ns))

    @staticmethod
    def settle_s(stamp):
        return SETTLE_SECONDS_S if stamp[0] % SECOND == 0 else SETTLE_S


class Half:
    """Since the folder was made. Times are time.monotonic()."""

    def __init__(self, hosts):
        self.excused = [{} for _ in range(hosts)]  # host -> {message: until}
        self.own = [{} for _ in range(hosts)]  # host -> {message: its names after this host changed it last}
        self.own_ended = [None] * hosts  # the last own change that no opening came after
        self.own_now = [0] * hosts  # own changes under way
        self.own_count = [0] * hosts  # how many names there were at the last own change
        self.unopened = [{} for _ in range(hosts)]  # host -> {message: until}: excused by a tick, and not opened since
        self.own_tick = [{} for _ in range(hosts)]  # host -> {message: until}: what its own changes need when it starts anew
        self.present = [set() for _ in range(hosts)]  # host -> messages that it has listed, there ever since
        self.foreign = [{} for _ in range(hosts)]  # host -> {message: its last change from elsewhere}
        self.moved = {}  # name -> when it last came to lead to something else
        self.led, self.repointed = {}, {}  # name -> the inode that it led to last; when it came to lead to another
        self.stood = collections.OrderedDict()  # stamp -> [contents, last seen]
        self.mtimes = collections.defaultdict(set)  # the server's own mtime -> contents
        self.shown = {}  # mtime -> (names, host): law 4


class Records:
    def __init__(self, world):
        self.w, self.lock = world, threading.RLock()
        self.halves, self.incarnations = {}, collections.Counter()
        self.folders = {}  # (host, folder) -> until when its directories may be others
        self.latest = 0  # the last excuse of all
        self.last = []  # halves in the order of their last change
        self.unsure = set()  # hosts that may not know that the clock was set back

    def half(self, half):
        if half not in self.halves:
            self.halves[half] = Half(self.w.params["hosts"])
        return self.halves[half]

    def incarnation(self, half):
        return self.incarnations[half[0]]

    def named(self, host, folder):
        """A host may take a folder for what it was for a moment: who works there then meets ENOENT, as on NFS."""
        if host is not None and self.may_be_another(host, folder, time.monotonic()):
            raise Nothing("somebody else has just changed it")

    # -- changes

    @contextlib.contextmanager
    def changing(self, host, what):
        """what: {half: [(name, name before)]}. One system call; `host` None: below."""
        for half, names in what.items():
            self.named(host, half[0])
            for name in {n for pair in names for n in pair if n and host is not None}:
                self._leads(host, half, name)
        began = time.monotonic()
        with self.lock:
            before = {half: self._state(half) for half in what}
            if host is not None:
                for half in what:
                    self.half(half).own_now[host] += 1
                    self.half(half).own_count[host] = len(before[half][1])
        try:
            yield
        finally:
            with self.lock:
                if host is not None:
                    for half in what:
                        self.half(half).own_now[host] -= 1
        with self.lock:
            for half, names in what.items():
                touched = {message_of(n) for pair in names for n in pair if n}
                self._changed(host, half, began, before[half], touched)

    def _state(self, half):
        stamp, names = self.w.stamps.of(self.w.low(*half)), self.w.on_disk(half)
        if stamp:
            self._stands(half, stamp, names)
        return stamp, names

    def _stands(self, half, stamp, names):
        self.half(half).mtimes[stamp[1]].add(frozenset(names))
        contents = self.half(half).stood.setdefault(stamp, [set(), 0])
        contents[0].add(frozenset(names))
        contents[1] = time.monotonic()

    def _changed(self, host, half, began, before, touched):
        r, now = self.half(half), time.monotonic()
        stamp, names = self.w.stamps.of(self.w.low(*half)), self.w.on_disk(half)
        if stamp is None:
            return
        if host is not None and touched and names == before[1]:
            # To a kernel that still knows the new name for the same file, as an NFS client's may, rename(2) has nothing to do.
            lag = [n for n in r.moved if message_of(n) in touched and self.name_may_lag(half, n, began)]
            assert lag, f"a change of {touched} without effect"
            self.w.count("rename without effect")
            return
        hidden = stamp == before[0]
        again = r.stood.get(stamp)
        if not hidden and again and again[0] != {frozenset(names)}:
            if now - again[1] < Stamps.settle_s(stamp):
                hidden = True
                self._stood_otherwise(r, {message_of(n) for was in again[0] for n in was ^ frozenset(names)}, stamp)
            else:  # no rule can tell them apart (the model's report, 4): that is outside of the law
                stamp = self._another_stamp(half)
        self._stands(half, stamp, names)
        self.last = [h for h in self.last if h != half] + [half]
        for name in set(names) ^ set(before[1]):
            r.moved[name] = now
        for name in set(names) & set(before[1]):
            if names[name] != before[1][name]:
                r.moved[name] = now
        for name, ino in [*before[1].items(), *names.items()]:
            if r.led.setdefault(name, ino) != ino:
                r.repointed[name] = now
            r.led[name] = ino
        here = {message_of(n) for n in names}
        for h in range(len(r.own)):
            r.present[h] &= here
            if h == host:
                r.own_ended[h] = now
                r.own_count[h] = max(r.own_count[h], len(names))
                for m in touched:
                    r.own_tick[h][m] = now + Stamps.settle_s(stamp) + SLACK_S if hidden else 0
                    r.own[h][m] = {n for n in names if message_of(n) == m}
            else:
                self._from_elsewhere(r, h, half, began, touched, max(len(names), len(before[1])), hidden and stamp)

    def _from_elsewhere(self, r, h, half, began, touched, count, hidden):
        now, until = time.monotonic(), 0
        ended = r.own_ended[h]
        near = r.own_now[h] or (ended and began - ended < BURST_LATE_S)
        windowed = near and half[1] in WINDOWED and max(count, r.own_count[h]) >= self.w.window_min
        if hidden:
            until = now + Stamps.settle_s(hidden) + SLACK_S
            self.latest = max(self.latest, until)
            self.w.count("excuse: tick")
        elif not windowed:
            self._ends(r, h)
        if windowed:
            until = now + self.w.confirm + CONFIRM_LATE_S
            self.latest = max(self.latest, until)
            self.w.count("excuse: window")
        if hidden and h in self.unsure:
            until = FOR_GOOD
            self.w.count("excuse: tick of a clock that is not known")
        for m in touched:
            r.own[h].pop(m, None)
            r.foreign[h][m] = now
            if hidden:
                r.unopened[h][m] = until
            if until:
                r.excused[h][m] = max(until, r.excused[h].get(m, 0))

    @staticmethod
    def _ends(r, host):
        """What was excused for good."""
        now = time.monotonic()
        r.excused[host] = {m: min(until, now) if until == FOR_GOOD else until for m, until in r.excused[host].items()}

    def started(self, host):
        """A program, which knows of the clock what it sees from now on."""
        if self.w.stamps.steps:
            self.unsure.add(host)

    def rebuilt(self, host):
        with self.lock:
            for r in self.halves.values():
                self._ends(r, host)

    def _stood_otherwise(self, r, messages, stamp):
        """By times that were set, the half has the stamp of what it was in this tick."""
        until = time.monotonic() + Stamps.settle_s(stamp) + SLACK_S
        self.latest = max(self.latest, until)
        for excused in r.excused:
            for m in messages:
                excused[m] = max(until, excused.get(m, 0))

    def _another_stamp(self, half):
        path = self.w.low(*half)
        while True:
            os.chmod(path, 0o700)
            stamp = self.w.stamps.of(path)
            if stamp not in self.half(half).stood:
                return stamp
            time.sleep(0.001)

    def _leads(self, host, half, name):
        """A mail server gives a name to one file only. Where this test does not, who works with it may mean the one before."""
        when, at = time.monotonic(), self.half(half).repointed.get(name)
        if at and (self.name_may_lag(half, name, when) or self.may_lag(host, half, message_of(name), when)):
            raise Nothing("the name led to another file a moment ago")

    @contextlib.contextmanager
    def rolling_back(self, half):
        with self.lock:
            began, before = time.monotonic(), self._state(half)
            yield
            touched = {message_of(n) for n in set(before[1]) | set(self.w.on_disk(half))}
            self._changed(None, half, began, before, touched)

    @contextlib.contextmanager
    def folder_changing(self, host, *folders):
        """One is made or dropped; or the first becomes the second."""
        yield
        with self.lock:
            until = time.monotonic() + self.w.revalidate + self.w.client_keeps + SLACK_S
            self.latest = max(self.latest, until)
            for folder in folders:
                self.incarnations[folder] += 1
                for h in self.w.hosts:
                    if h.number != host:
                        self.folders[(h.number, folder)] = until
            for sub in ("new", "cur"):
                half = self.halves.pop((folders[0], sub), None)
                if folders[1:] and half:
                    self.halves[(folders[1], sub)] = half
                for h in self.w.hosts:
                    for folder in folders:
                        h.remembers.pop((folder, sub), None)

    def listed(self, host, half, names):
        with self.lock:
            here = {message_of(n) for n in self.w.on_disk(half)}
            self.half(half).present[host] |= {message_of(n) for n in names} & here

    def times_set(self, half):
        """By utimes(2): an mtime may come again. No server can help that."""
        with self.lock:
            self.half(half).shown.clear()
            for h in self.w.hosts:
                h.remembers.pop(half, None)

    def remounted(self, host):
        with self.lock:
            for r in self.halves.values():
                for m, until in r.own_tick[host].items():
                    r.excused[host][m] = max(until, r.excused[host].get(m, 0))
                    self.latest = max(self.latest, until)
                r.own_tick[host].clear()
                r.own[host].clear()
                r.own_ended[host] = None
            for key in [k for k in self.folders if k[0] == host]:
                del self.folders[key]
        self.started(host)

    def looked(self, host, half, when):
        """An opening came after the own changes, and, if it began then, after a tick was over."""
        with self.lock:
            r = self.half(half)
            r.own_ended[host] = None
            r.unopened[host] = {m: until for m, until in r.unopened[host].items() if until > when}

    def lately(self, n):
        """The halves that changed last."""
        there = set(self.w.halves())
        return [half for half in reversed(self.last) if half in there][:n]

    # -- what may be

    def stands_for(self, half, stamp, names):
        stood = self.half(half).stood.get(stamp)
        return bool(stood) and stood[0] == {frozenset(names)}

    def came_again(self, half, mtime):
        """The server itself shows this time with two contents, since its clock was set back: by less, perhaps, than anybody
        can notice who sees a directory's times only."""
        return bool(self.w.stamps.steps) and len(self.half(half).mtimes.get(mtime, ())) > 1

    def may_be_another(self, host, folder, when):
        return self.folders.get((host, folder), 0) > when

    def may_lag(self, host, half, message, when):
        return self.half(half).excused[host].get(message, 0) > when

    def name_may_lag(self, half, name, when):
        """What a name leads to: the kernel above and the client below may remember."""
        return self.half(half).moved.get(name, 0) + self.w.revalidate + self.w.client_keeps + SLACK_S > when

# SPDX-License-Identifier: GPL-2.0-or-later
"""make bench, part "hung": two storages below one root, one of which hangs with twenty sessions in it. What does who works on
the other notice? Rounds while nothing hangs and rounds while it does take turns, so that a noisy machine spoils both alike.
What the kernel's rename lock costs meanwhile: rename_lock.py."""

import collections
import contextlib
import io
import os
import statistics
import sys
import time

from daemon import make_maildir, until
from process import Process
from storages import STUCK, TwoStorages, delivering, listing, looking, reading

SHORT_S, SHORT, LONG_S = 2, 12, 30  # phases: so many short ones with and without a hang, then a long one
MESSAGES = 2000  # in cur/
SMALL, MESSAGE, LARGE, AHEAD = 4096, 64 << 10, 3 << 20, 2 << 20
WINDOW = 128 << 10  # of the kernel's read-ahead
FIRST_EVERY = 5  # rounds, then a mailbox that nobody has opened
BAR = 1.1
READERS = 4  # of the sessions that get stuck are in the middle of a large file


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def unless_it_fails():
    """What hosts print of their logs at their end is shown only then."""
    kept = io.StringIO()
    try:
        with contextlib.redirect_stdout(kept):
            yield
    except BaseException:
        print(kept.getvalue(), file=sys.stderr)
        raise


@contextlib.contextmanager
def sessions(count):
    made = [Process() for _ in range(count)]
    try:
        yield made
    finally:
        for p in made:
            p.stop()


def table(head, rows):
    print(f"\n| {' | '.join(head)} |\n|---{'|---:' * (len(head) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


# -- who gets stuck


def reading_ahead(path):
    """The kernel by itself asks for one window at a time; so it is more of them than there are workers."""
    with open(path, "rb", 0) as f:
        for at in range(0, AHEAD, WINDOW):
            os.posix_fadvise(f.fileno(), at, WINDOW, os.POSIX_FADV_WILLNEED)
        while f.read(1 << 20):
            pass


class Hang:
    """with Hang(m, stuck): all that is asked of slow/ waits, and the sessions are in it. Those who read ahead of a large file
    begin first: a read waits, not the opening of the file."""

    def __init__(self, m, stuck):
        self.m, self.stuck = m, stuck
        self.boxes = [f"u{n}" for n in range(len(stuck))]

    def _large(self, box):
        return f"{box}/cur/1600000003.M1P1.host:2,S"

    def __enter__(self):
        slow, pairs = self.m.slow, list(zip(self.stuck, self.boxes))
        for _, box in pairs[:READERS]:
            path = self.m.up("slow", self._large(box))
            with open(path, "rb") as f:  # from below again
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        slow.delay("read", "*", 600000)
        for p, box in pairs[:READERS]:
            p.begin(reading_ahead, self.m.up("slow", self._large(box)))
        until("reads to be stuck", lambda: slow.waiting() >= READERS)
        time.sleep(0.2)  # the others' too
        slow.delay("*", "*", 600000)
        calls = (listing, looking, reading, delivering)
        for n, (p, box) in enumerate(pairs[READERS:]):
            p.begin(calls[n % len(calls)], self.m.up("slow", box))
        time.sleep(0.2)
        return self

    def __exit__(self, kind, *_):
        free = [p for p in self.stuck if p.answers(0.001)]
        self.m.slow.clear()
        if kind is None:
            assert not free, f"{len(free)} of {len(self.stuck)} sessions were not stuck"
            for p in self.stuck:
                p.end()
            for box in self.boxes:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.m.slow.made, box, "tmp/18.M1P1.host"))


def fill(m):
    """well/quiet to look at, well/busy to change; large messages on slow for those who get stuck."""
    for box in ("quiet", "busy"):
        top = os.path.join(m.well.made, box)
        make_maildir(top, new=1)
        for n in range(MESSAGES):
            with open(os.path.join(top, "cur", f"17000{n:05}.M{n:06}P1234.mail-in1,S={SMALL}:2,S"), "xb") as f:
                f.write(b"x" * SMALL)
        for size in (MESSAGE, LARGE):
            with open(os.path.join(top, "cur", f"16{size:08}.M1P1.host:2,S"), "xb") as f:
                f.write(b"x" * size)
    for n in range(READERS):
        os.truncate(os.path.join(m.slow.made, f"u{n}/cur/1600000003.M1P1.host:2,S"), AHEAD)


# -- who works on the other


class Work:
    """Rounds of all operations on well/, each timed; .took: {operation: [ns]} of each phase."""

    def __init__(self, m):
        self.m, self.serial = m, 0
        self.quiet, self.busy = m.up("well/quiet"), m.up("well/busy")
        flags = f"{self.busy}/cur/{max(os.listdir(f'{self.busy}/cur'))}"
        self.names = [flags, flags + "T"]
        self.phases = []
        self.took = None

    def phase(self, seconds):
        self.took = collections.defaultdict(list)
        self.phases.append(self.took)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._round()

    def _time(self, what, call, *args):
        start = time.perf_counter_ns()
        call(*args)
        self.took[what].append(time.perf_counter_ns() - start)

    def _round(self):
        self.serial += 1
        self._time(f"login ({MESSAGES:,} messages)", self.login, self.quiet)
        self._time(f"listing of {MESSAGES:,}", os.listdir, f"{self.quiet}/cur")
        for what, size in (("reading 64 KB", MESSAGE), ("reading 3 MB, with read-ahead", LARGE)):
            path = f"{self.quiet}/cur/16{size:08}.M1P1.host:2,S"
            with open(path, "rb") as f:  # to be read from below
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._time(what, self.read, path, size)
        self._time("delivery (tmp/, then new/)", self.deliver)
        os.unlink(f"{self.busy}/new/{self._name()}")
        self._time("flag (a rename in cur/)", self.flag)
        if self.serial % FIRST_EVERY == 0:
            box = f"first{self.serial}"
            make_maildir(os.path.join(self.m.well.made, box), new=1, cur=4)
            self._time("login to a mailbox not seen before (5 messages)", self.login, self.m.up("well", box))

    def login(self, top):
        os.stat(top)
        for half in ("new", "cur"):
            found = os.listdir(f"{top}/{half}")
        self.read(f"{top}/cur/{max(found)}")

    @staticmethod
    def read(path, size=None):
        with open(path, "rb", 0) as f:
            got = len(f.readall())
        assert size is None or got == size, path

    def _name(self):
        return f"18{self.serial:08}.M1P1.host"

    def deliver(self):
        with open(f"{self.busy}/tmp/{self._name()}", "xb", 0) as f:
            f.write(b"x" * SMALL)
        os.rename(f.name, f"{self.busy}/new/{self._name()}")

    def flag(self):
        os.rename(*self.names)
        self.names.reverse()


def compared(well, hung):
    """Of two lists of phases, well[i], hung[i], well[i + 1] in this order: each hang is compared with what was around it."""
    for what in well[0]:
        before, meanwhile = (statistics.median([t for phase in phases for t in phase[what]]) for phases in (well, hung))
        alone, stuck = ([statistics.median(phase[what]) for phase in phases] for phases in (well, hung))
        ratios = [2 * t / (alone[i] + alone[i + 1]) for i, t in enumerate(stuck)]
        ratio = statistics.median(ratios)
        yield (
            what,
            f"{before / 1e6:.3f} ms",
            f"{meanwhile / 1e6:.3f} ms",
            f"{ratio:.2f}",
            f"≤ {BAR}: {'reached' if round(ratio, 2) <= BAR else 'missed'}",
            f"{ratios[-1]:.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        )


def work():
    with unless_it_fails(), sessions(STUCK) as stuck, TwoStorages(log="info") as m:
        fill(m)
        m.start()
        m.fs_start()
        w = Work(m)
        w.phase(SHORT_S)  # does not count: caches are as warm as they will be
        w.phases.clear()
        for seconds in [SHORT_S] * SHORT + [LONG_S]:
            w.phase(seconds)
            with Hang(m, stuck):
                w.phase(seconds)
        w.phase(LONG_S)
        status = {k: m.count(k) for k in ("requests.waited", "requests.killed")}
        say("  " + ", ".join(f"{k} {v}" for k, v in status.items()))
    return w.phases[::2], w.phases[1::2]


def figures():
    """Prints Markdown."""
    load = os.getloadavg()[0]
    say("two storages, one hangs")
    well, hung = work()
    print(
        f"\nTwo storages below one root. One hangs {SHORT} times for {SHORT_S} s and once for {LONG_S} s, with {STUCK} sessions in "
        f"it. What sessions on the other take: medians; load {load:.1f} before, {os.getloadavg()[0]:.1f} behind."
    )
    head = ("operation", "nothing hangs", "meanwhile", "ratio", "aim", f"in the hang of {LONG_S} s", "in single hangs")
    table(head, compared(well, hung))

# SPDX-License-Identifier: GPL-2.0-or-later
"""make bench, part "hung": two storages below one root, one of which hangs with twenty sessions in it. What does who works on
the other notice? The same is done in turns on a host where nothing hangs, so that a noisy machine spoils both alike. (Not on the
one host before and after: after a hang it has more threads, which has a price of its own.)
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

PHASE_S = 30
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
        print(f"| {' | '.join(row)} |", flush=True)


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
    """All operations on one host's well/, each returns how long it took."""

    def __init__(self, m):
        self.m, self.serial = m, 0
        self.quiet, self.busy = m.up("well/quiet"), m.up("well/busy")
        flags = f"{self.busy}/cur/{max(os.listdir(f'{self.busy}/cur'))}"
        self.names = [flags, flags + "T"]

    def operations(self):
        """Those of the next round."""
        self.serial += 1
        out = {
            f"login ({MESSAGES:,} messages)": lambda: taken_ns(self.login, self.quiet),
            f"listing of {MESSAGES:,}": lambda: taken_ns(os.listdir, f"{self.quiet}/cur"),
            "reading 64 KB": lambda: self.read_cold(MESSAGE),
            "reading 3 MB, with read-ahead": lambda: self.read_cold(LARGE),
            "delivery (tmp/, then new/)": self.deliver,
            "flag (a rename in cur/)": self.flag,
        }
        if self.serial % FIRST_EVERY == 0:
            out["login to a mailbox not seen before (5 messages)"] = self.login_first
        return out

    @staticmethod
    def read(path):
        with open(path, "rb", 0) as f:
            return len(f.readall())

    def login(self, top):
        os.stat(top)
        for half in ("new", "cur"):
            found = os.listdir(f"{top}/{half}")
        self.read(f"{top}/cur/{max(found)}")

    def login_first(self):
        box = f"first{self.serial}"
        make_maildir(os.path.join(self.m.well.made, box), new=1, cur=4)
        return taken_ns(self.login, self.m.up("well", box))

    def read_cold(self, size):
        path = f"{self.quiet}/cur/16{size:08}.M1P1.host:2,S"
        with open(path, "rb") as f:  # to be read from below
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return taken_ns(self.read, path)

    def deliver(self):
        name = f"18{self.serial:08}.M1P1.host"
        took = taken_ns(self._deliver, name)
        os.unlink(f"{self.busy}/new/{name}")
        return took

    def _deliver(self, name):
        with open(f"{self.busy}/tmp/{name}", "xb", 0) as f:
            f.write(b"x" * SMALL)
        os.rename(f.name, f"{self.busy}/new/{name}")

    def flag(self):
        took = taken_ns(os.rename, *self.names)
        self.names.reverse()
        return took


def taken_ns(call, *args):
    start = time.perf_counter_ns()
    call(*args)
    return time.perf_counter_ns() - start


def phase(both, seconds):
    """Rounds on two hosts, operation by operation, now the one first, now the other. Returns {operation: (medians)}."""
    took = collections.defaultdict(lambda: ([], []))
    end, order = time.monotonic() + seconds, [0, 1]
    while time.monotonic() < end:
        operations = [work.operations() for work in both]
        for what in operations[0]:
            for which in order:
                took[what][which].append(operations[which][what]())
        order.reverse()
    say(f"  {len(took['reading 64 KB'][0])} rounds")
    return {what: tuple(map(statistics.median, pair)) for what, pair in took.items()}


@contextlib.contextmanager
def host():
    with TwoStorages(log="info") as m:
        fill(m)
        m.start()
        m.fs_start()
        yield m


def measured():
    with unless_it_fails(), sessions(STUCK) as stuck, host() as steady, host() as m:
        both = [Work(steady), Work(m)]
        phase(both, 2)  # caches are as warm as they will be
        before = phase(both, PHASE_S)
        with Hang(m, stuck):
            meanwhile = phase(both, PHASE_S)
        behind = phase(both, PHASE_S)
        say("  " + ", ".join(f"{k} {m.count(k)}" for k in ("requests.waited", "requests.killed")))
    return before, meanwhile, behind


def compared(before, meanwhile, behind):
    for what, (steady, stuck) in meanwhile.items():
        around = [there / here for here, there in (before[what], behind[what])]
        ratio = stuck / steady
        aim = f"≤ {BAR}: {'reached' if round(ratio, 2) <= BAR else 'missed'}"
        times = [f"{ns / 1e6:.3f} ms" for ns in (steady, stuck)]
        yield what, *times, f"{ratio:.2f}", aim, *(f"{r:.2f}" for r in around)


def figures():
    """Prints Markdown."""
    load = os.getloadavg()[0]
    say(f"two storages, one hangs: {PHASE_S} s before, meanwhile and behind")
    found = measured()
    print(
        f"\nTwo storages below one root. One hangs for {PHASE_S} s with {STUCK} sessions in it. What sessions on the other take, "
        "beside the same on a second maildexfs where nothing ever hangs, in turns: medians. The last two columns are the same "
        f"ratio for as long before the hang and behind it. Load {load:.1f} before, {os.getloadavg()[0]:.1f} behind."
    )
    head = ("operation", "nothing hangs", "one storage hangs", "ratio", "aim", "ratio before", "behind")
    table(head, compared(*found))

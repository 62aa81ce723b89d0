# SPDX-License-Identifier: GPL-2.0-or-later
"""make bench, part "hung": what the kernel's rename lock costs. Linux carries out one rename between directories at a time for
each mounted filesystem (s_vfs_rename_mutex of its superblock). All storages below one maildexfs are one filesystem for it."""

import contextlib
import os
import random
import statistics
import time

from daemon import until
from faultfs import Faulty
from hung import say, sessions, table, unless_it_fails
from storages import TwoStorages

HELD_S = 3  # so long the rename on the one storage takes
ROUNDS = 5
HANGS = 20
NAME = "1600000003.M1P1.host:2,S"


def deliver(top, name):
    with open(f"{top}/tmp/{name}", "xb", 0) as f:
        f.write(b"x" * 4096)
    os.rename(f"{top}/tmp/{name}", f"{top}/new/{name}")


def deliver_by_link(top, name):
    with open(f"{top}/tmp/{name}", "xb", 0) as f:
        f.write(b"x" * 4096)
    os.link(f"{top}/tmp/{name}", f"{top}/new/{name}")
    os.unlink(f"{top}/tmp/{name}")


def take(top, name):
    """As a server does that opens a folder with new mail."""
    os.rename(f"{top}/new/{name}", f"{top}/cur/{name}:2,")


def flag(top, _):
    os.rename(f"{top}/cur/{NAME}", f"{top}/cur/{NAME}T")
    os.rename(f"{top}/cur/{NAME}T", f"{top}/cur/{NAME}")


def look(top, _):
    for half in ("new", "cur"):
        os.listdir(f"{top}/{half}")
    with open(f"{top}/cur/{NAME}", "rb") as f:
        f.read()


def taken_s(what, top, name):
    start = time.perf_counter()
    what(top, name)
    return time.perf_counter() - start


# Those that may wait for long are made by a process each, those behind them meanwhile.
DELIVERY, TAKEN = "delivery: rename tmp/ to new/", "rename new/ to cur/"
BESIDE = "delivery to another mailbox of the hung storage"
WAITING = {DELIVERY: deliver, TAKEN: take, BESIDE: deliver}
OTHERS = {
    "delivery: link to new/, unlink in tmp/": deliver_by_link,
    "two renames within cur/": flag,
    "listing of new/ and cur/, reading of a message": look,
}


class Hold:
    """with Hold(slow, top, process, name): a delivery by rename to the mailbox u0 of slow takes HELD_S, made there by the
    process."""

    def __init__(self, slow, top, process, name):
        self.slow, self.top, self.process, self.name = slow, top, process, name

    def __enter__(self):
        self.slow.delay("rename", "u0/*", HELD_S * 1000, times=1)
        self.process.begin(deliver, self.top, self.name)
        until("the rename to hang", lambda: self.slow.waiting() == 1)
        return self

    def __exit__(self, *_):
        self.process.end()
        self.slow.clear()


class Place:
    """From where things are done: the mailboxes of both storages as they are seen there."""

    def __init__(self, slow, well):
        self.slow, self.well = slow, well
        self.took = {what: [] for what in (*WAITING, *OTHERS)}

    def top(self, what):
        return {BESIDE: f"{self.slow}/u1", TAKEN: f"{self.well}/u2"}.get(what, f"{self.well}/u1")

    def prepare(self, name):
        deliver(self.top(TAKEN), name + "t")
        look(f"{self.slow}/u1", name)
        look(f"{self.well}/u1", name)

    def begin(self, processes, name):
        for p, (what, call) in zip(processes, WAITING.items()):
            p.begin(taken_s, call, self.top(what), name + "t")

    def others(self, name):
        for what, call in OTHERS.items():
            self.took[what].append(taken_s(call, self.top(what), name + "l"))

    def end(self, processes):
        for p, what in zip(processes, WAITING):
            self.took[what].append(p.end())


@contextlib.contextmanager
def pause():
    """Instead of a hang: caches are as cold after it."""
    time.sleep(1)
    yield


def measure(slow, hung_at, places, made):
    """Each round: one rename hangs on slow, made by way of hung_at; the same is done in all places meanwhile."""
    holder, rest = made[0], [made[1 + 3 * n : 4 + 3 * n] for n in range(len(places))]
    for n in range(ROUNDS):
        names = [f"19{n:06}{hung_at is None:d}{k}{os.urandom(4).hex()}.M1P1.host" for k in range(len(places))]
        for place, name in zip(places, names):
            place.prepare(name)
        with Hold(slow, hung_at, holder, names[0] + "h") if hung_at else pause():
            for place, name, processes in zip(places, names, rest):
                place.begin(processes, name)
            for place, name in zip(places, names):
                place.others(name)
            for place, processes in zip(places, rest):
                place.end(processes)


def begun(m, p, box, name):
    """A delivery to slow that hangs, and is under way."""
    m.slow.delay("rename", "u0/*", HELD_S * 1000, times=1)
    p.begin(deliver, m.up("slow", box), name)
    until("the rename to hang", lambda: m.slow.waiting() == 1)


def at_the_lock(p):
    """It sleeps in the kernel, and goes on to, as who waits for a lock does, not for an answer."""
    states = []
    for _ in range(5):
        with open(f"/proc/{p.pid}/stat", encoding="ascii") as f:
            states.append(f.read().rsplit(")", 1)[1].split()[0])
        time.sleep(0.02)
    return set(states) == {"D"}


def ended_s(p):
    start = time.monotonic()
    p.kill()
    return time.monotonic() - start


def killed(m, made):
    """Seconds: until one who waits for the lock ends, when killed; until he goes on, when the one who holds it is killed; until
    another does, if the next delivery to the hung storage comes before him."""
    holder, waiter, again, behind, last = made
    begun(m, holder, "u0", "20a.M1P1.host")
    waiter.begin(deliver, m.up("well/u3"), "20b.M1P1.host")
    until("one to wait for the lock", lambda: at_the_lock(waiter))
    out = [ended_s(waiter)]
    holder.end()
    begun(m, holder, "u0", "20c.M1P1.host")
    again.begin(deliver, m.up("well/u3"), "20d.M1P1.host")
    until("one to wait for the lock", lambda: at_the_lock(again))
    start = time.monotonic()
    holder.kill()
    again.end()
    out.append(time.monotonic() - start)
    behind.begin(deliver, m.up("slow/u1"), "20e.M1P1.host")
    time.sleep(0.5)
    last.begin(taken_s, deliver, m.up("well/u3"), "20f.M1P1.host")
    out.append(last.end())
    behind.end()
    m.slow.clear()
    return out


def stream(top, name, seconds):
    """Deliveries one after the other, some 50 a second at most; returns how many."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        deliver(top, f"{name}.{n}.host")
        n += 1
        time.sleep(0.02)
    return n


def amid(m, deliverers, other):
    """Hangs of slow in the midst of deliveries to it: how many of HANGS hold up a delivery to well for as long as they last
    (1 s is looked at); and how many deliveries a second there were before."""
    held, done, took = 0, 0, 0
    for n in range(HANGS):
        name = f"21.{len(deliverers)}.{n}"
        start = time.monotonic()
        for k, p in enumerate(deliverers):
            p.begin(stream, m.up(f"slow/u{k}"), f"{name}.{k}", 0.5)
        time.sleep(0.3 + random.random() / 20)
        m.slow.delay("*", "*", 600000)
        took += time.monotonic() - start
        time.sleep(0.1)
        other.begin(deliver, m.up("well/u4"), f"{name}.host")
        held += not other.answers(1)
        m.slow.clear()
        done += sum(p.end() for p in deliverers)
        other.end()
    return held, done / took


def shared(made):
    """One maildexfs over both storages; and both without one."""
    with TwoStorages(log="info") as m:
        m.start()
        m.fs_start()
        free, through, below, plain = (Place(top("slow"), top("well")) for top in (m.up, m.up, m.low, m.low))
        measure(m.slow, None, [free], made)
        measure(m.slow, m.up("slow/u0"), [through, below], made)
        measure(m.slow, m.low("slow/u0"), [plain], made)
        hangs = [amid(m, made[6 : 6 + count], made[5]) for count in (1, 10)]
        return [free, through, below, plain], killed(m, made[:5]), hangs


def apart(made):
    """A maildexfs for each storage."""
    with Faulty(log="info") as slow, Faulty(log="info") as well:
        for m in (slow, well):
            for n in range(3):
                m.maildir(f"u{n}", new=2, cur=5)
            m.start()
            m.fs_start()
        place = Place(slow.up(), well.up())
        measure(slow.faults, slow.up("u0"), [place], made)
    return place


def shown(seconds):
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def figures():
    """Prints Markdown."""
    say(f"a rename between directories hangs for {HELD_S} s")
    with unless_it_fails():
        with sessions(16) as made:
            places, (waiter_s, freed_s, again_s), hangs = shared(made)
        with sessions(4) as made:
            places.append(apart(made))
    print(
        f"\nOne delivery by rename hangs for {HELD_S} s on one storage. What the same takes meanwhile on the other one; medians "
        f"of {ROUNDS}."
    )
    table(
        ("operation", "nothing hangs", "through the mount", "below it", "no maildexfs", "a maildexfs for each storage"),
        ((what, *(shown(statistics.median(place.took[what])) for place in places)) for what in (*WAITING, *OTHERS)),
    )
    print(
        f"\nOne who waits for the lock and is killed ends after {waiter_s:.1f} s. When the one who holds it is killed, others "
        f"go on after {freed_s:.1f} s; but where the next delivery to the hung storage comes first, they wait anew: "
        f"{again_s:.1f} s, which is what is left of the hang."
    )
    often = "; ".join(f"{held} of {HANGS} amid {rate:.0f} deliveries a second" for held, rate in hangs)
    print(
        f"\nHangs that held up deliveries by rename on the other storage, since one on theirs was under way: {often}."
    )

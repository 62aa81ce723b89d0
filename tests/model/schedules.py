# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes inside operations, and the schedules C1 to C16 of the model's report (the design's section 3.1 comes from them), each
as an operation that brings it about on purpose: they count only where it really came about."""

import contextlib
import os
import time

from host import opened
from oracle import listing
from ops import (
    FLAGS, OPS, a_folder, a_half, a_host, a_message, a_new_message, begin_reading, deliver, flags_of, full, may_be_named,
    notify, op,
)  # fmt: skip
from record import Stamps, message_of
from world import Nothing

LEFT_OUT = {
    "C10": "needs an NFS client's own READDIR pages: tests/nfs",
    "C16": "needs NFS mount options (nocto, softreval): tests/nfs",
}
SCHEDULES = [f"C{n}" for n in range(1, 17) if f"C{n}" not in LEFT_OUT]


class Inside:
    """with Inside(w, host, call, pattern, nth, change) as i: while the nth such call below the host waits, change() is made.
    i.ran: it was."""

    def __init__(self, w, host, call, pattern, nth, change):
        self.w, self.change, self.ran, self.failed = w, change, False, None
        self.rule = w.hosts[host].m.faults.between(call, pattern, self._made, nth=nth)

    def _made(self):
        try:
            self.change()
            self.ran = True
        except Nothing:
            pass
        except BaseException as e:  # pylint: disable=broad-except
            self.failed = e

    def __enter__(self):
        self.rule.__enter__()
        return self

    def __exit__(self, *what):
        end = self.rule.__exit__(*what)
        if self.failed and not what[0]:
            raise self.failed
        return end


# -- any change inside any operation

OWN = {
    "flag": ("rename", "getattr"),
    "expunge": ("unlink", "getattr"),
    "move": ("rename", "getattr"),
    "deliver": ("link", "getattr", "create"),
    "list": ("getattr", "opendir", "readdir"),
    "poll": ("getattr", "opendir", "readdir"),
}


def draw_inside(w, rng):
    what = rng.choice(sorted(OWN))
    return {
        "host": a_host(w, rng), "what": what, "call": rng.choice(OWN[what]), "nth": rng.choice((1, 1, 2, 3)),
        "message": a_message(w, rng), "other": a_message(w, rng), "new": a_new_message(w, rng),
        "foreign": rng.choice(("flag", "expunge", "append", "deliver", "put back")), "flag": rng.choice(FLAGS),
    }  # fmt: skip


def foreign_change(w, foreign, half, other, new, flag):
    """By a silent writer, in that half if it can."""
    if foreign == "deliver":
        deliver(w, None, half[0], new)
    elif foreign == "append":
        full(w, *half)
        w.create(None, half, new + (":2," if half[1] == "cur" else ""))
    else:
        at, name = w.find(other)
        if foreign == "flag":
            flags = "".join(sorted(set(flags_of(name)) ^ {flag}))
            w.rename(None, at, name, (at[0], "cur"), f"{other}:2,{flags}")
        else:
            w.unlink(None, at, name)
            if foreign == "put back":
                w.create(None, at, name)


@op(14, draw_inside)
def inside(w, host, what, call, nth, message, other, new, foreign, flag):
    half, name = w.find(message)
    may_be_named(w, host, half[0])
    if message == other and what in ("flag", "expunge", "move"):
        raise Nothing("two at one message: either may be refused")
    folder, sub = half
    pattern = "/".join(half) + ("*" if call in ("rename", "unlink", "link", "create") else "")
    reading = begin_reading(w, host, half)[1]
    with Inside(w, host, call, pattern, nth, lambda: foreign_change(w, foreign, half, other, new, flag)) as i:
        if what == "flag" and sub == "cur":
            flags = "".join(sorted(set(flags_of(name)) ^ {flag}))
            w.rename(host, half, name, half, f"{message}:2,{flags}")
        elif what == "expunge":
            w.unlink(host, half, name)
        elif what == "move" and sub == "new":
            w.rename(host, half, name, (folder, "cur"), f"{message}:2,")
        elif what == "deliver":
            deliver(w, host, folder, new + "d")
        elif what in ("list", "poll"):
            with w.hosts[host].acting(), opened(w.path(host, *half)) as fd:
                listed = listing(fd)
    if not i.ran:
        raise Nothing("no such call was made")
    w.count(f"inside {what}")
    if what in ("list", "poll"):
        w.records.looked(host, half, reading["when"])
        w.oracle.judge(host, half, listed, reading["before"], w.on_disk(half), reading["when"])


# -- C1 to C15


def a_cur(w, host, message, windows=True):
    """The cur/ that the message is in; big enough for windows."""
    half, name = w.find(message, [(f, "cur") for f in w.folders()])
    may_be_named(w, host, half[0])
    if windows and len(w.on_disk(half)) < w.window_min:
        raise Nothing("no windows here")
    return half, name


def draw_c(w, rng):
    return {
        "host": a_host(w, rng), "message": a_message(w, rng, "cur"), "new": a_new_message(w, rng), "flag": rng.choice(FLAGS),
        "way": rng.randrange(4),
    }  # fmt: skip


def draw_half(w, rng):
    return {"host": a_host(w, rng), "half": a_half(w, rng), "message": a_new_message(w, rng)}


def toggled(name, flag):
    return f"{message_of(name)}:2," + "".join(sorted(set(flags_of(name)) ^ {flag}))


@op(2, draw_c)
def c1(w, host, message, new, flag, way):
    """A silent change, and behind it an own one with a window."""
    half, name = a_cur(w, host, message)
    w.oracle.check(host, half)
    w.create(None, half, new + ":2,")
    w.rename(host, half, name, half, toggled(name, flag))
    w.oracle.check(host, half)
    w.count("C1")


@op(2, draw_c)
def c2(w, host, message, new, flag, way):
    """The slip: a silent change between an own one's two stamps."""
    half, name = a_cur(w, host, message)
    w.oracle.check(host, half)
    if way % 2:
        w.rename(host, half, name, half, toggled(name, flag))
        w.create(None, half, new + ":2,")
        w.count("C2")
    else:
        with Inside(w, host, "rename", "/".join(half) + "*", 1, lambda: w.create(None, half, new + ":2,")) as i:
            w.rename(host, half, name, half, toggled(name, flag))
        w.count("C2", int(i.ran))
    w.oracle.check(host, half)


@op(2, draw_c)
def c3(w, host, message, new, flag, way):
    """Another host sets a flag while this one lists."""
    half, name = a_cur(w, host, message, windows=False)
    w.create(None, half, new + ":2,")
    reading = begin_reading(w, host, half)[1]
    call, nth = (("readdir", 1), ("readdir", 2), ("opendir", 1), ("getattr", 2))[way]
    with Inside(w, host, call, "/".join(half), nth, lambda: w.rename(None, half, name, half, toggled(name, flag))) as i:
        with w.hosts[host].acting(), opened(w.path(host, *half)) as fd:
            listed = listing(fd)
    w.records.looked(host, half, reading["when"])
    w.oracle.judge(host, half, listed, reading["before"], w.on_disk(half), reading["when"])
    w.count("C3", int(i.ran))


@op(2, draw_c)
def c4(w, host, message, new, flag, way):
    """An own removal that maildexd hears of late: the message was put back meanwhile."""
    half, name = a_cur(w, host, message, windows=False)
    h = w.hosts[host]
    if not h.m.process or h.stopped:
        raise Nothing("maildexd is away")
    OPS["delay_all_events"][2](w, host)
    w.unlink(host, half, name)
    w.create(None, half, name)
    notify(w, host, half, name)
    h.wakes()
    w.oracle.check(host, half)
    w.count("C4")


@op(2, lambda w, rng: {"host": a_host(w, rng), "folder": a_folder(w, rng), "message": a_new_message(w, rng), "twice": rng.random() < 0.5})
def c5(w, host, folder, message, twice):
    """The event of an arrival comes late, or again, when the message is gone."""
    may_be_named(w, host, folder)
    h, half = w.hosts[host], (folder, "new")
    if not h.m.process or h.stopped:
        raise Nothing("maildexd is away")
    deliver(w, None, folder, message)
    if twice:
        notify(w, host, half, message)
    w.oracle.check(host, half)
    w.unlink(None, half, message)
    w.oracle.check(host, half)
    notify(w, host, half, message)
    w.oracle.check(host, half)
    w.count("C5")


@op(2, draw_half)
def c6(w, host, half, message):
    """A change, and the directory's time set back to what it was."""
    half = begin_reading(w, host, half)[0]
    full(w, *half)
    w.oracle.check(host, half)
    before = os.stat(w.low(*half))
    w.create(None, half, message)
    w.utime(None, half, (before.st_mtime_ns, before.st_mtime_ns))
    w.oracle.check(host, half)
    w.count("C6")


@op(1, lambda w, rng: {**draw_half(w, rng), "ms": rng.choice((9, 60, 3600000))})
def c7(w, host, half, message, ms):
    """The server's clock steps back, and then comes a change."""
    half = begin_reading(w, host, half)[0]
    full(w, *half)
    w.oracle.check(host, half)
    OPS["clock_back"][2](w, ms)
    w.create(None, half, message)
    w.oracle.check(host, half)
    w.count("C7")


@op(2, lambda w, rng: {"host": a_host(w, rng), "folder": a_folder(w, rng), "message": a_new_message(w, rng), "told": rng.random() < 0.7})
def c8(w, host, folder, message, told):
    """A rollback to exactly what the listing stands for, while it holds an event from behind that."""
    half = begin_reading(w, host, (folder, "new"))[0]
    h = w.hosts[host]
    stamp = w.stamps.of(w.low(*half))
    if Stamps.settle_s(stamp) > 1 or not h.m.process or h.stopped:
        raise Nothing("takes too long")
    time.sleep(Stamps.settle_s(stamp))
    w.oracle.check(host, half)
    w.take_snapshot(half)
    deliver(w, None, folder, message)
    if told:
        notify(w, host, half, message)
    else:
        w.oracle.check(host, half)
    w.roll_back(half)
    w.oracle.check(host, half)
    w.count("C8")


def two_in_a_tick(w, host, half, first, look):
    """Returns whether the two changes had one stamp, with a listing between them."""
    half = begin_reading(w, host, half)[0]
    full(w, *half)
    w.create(None, half, first)
    stamp = w.stamps.of(w.low(*half))
    look(half)
    w.create(None, half, first + "b")
    return w.stamps.of(w.low(*half)) == stamp


@op(2, draw_half)
def c9(w, host, half, message):
    """Two changes share a stamp, and the listing was read between them."""

    def look(half):
        when = time.monotonic()
        with w.hosts[host].acting():
            os.listdir(w.path(host, *half))
        w.records.looked(host, half, when)

    w.count("C9", int(two_in_a_tick(w, host, half, message, look)))


@op(2, draw_half)
def c15(w, host, half, message):
    """The same, and a server remembers the first listing with the time that it was shown."""
    w.count("C15", int(two_in_a_tick(w, host, half, message, lambda half: w.oracle.poll(host, half))))


@op(1, draw_c)
def c11(w, host, message, new, flag, way):
    """A gap: what happened inside an own window is never told, and one of the programs is killed."""
    half, name = a_cur(w, host, message)
    w.oracle.check(host, half)
    with Inside(w, host, "rename", "/".join(half) + "*", 1, lambda: w.create(None, half, new + ":2,")) as i:
        w.rename(host, half, name, half, toggled(name, flag))
    if way % 2:
        w.restart_maildexfs(host, way > 1)
    else:
        w.stop_maildexd(host, kill=way > 1)
        w.start_maildexd(host)
    w.oracle.check(host, half)
    w.count("C11", int(i.ran))


@op(3, lambda w, rng: {"host": a_host(w, rng), "message": a_message(w, rng, "new"), "slowly": rng.random() < 0.5})
def c12(w, host, message, slowly):
    """Another host moves a message from new/ to cur/ between the two listings: it is in one of them."""
    half, name = w.find(message, [(f, "new") for f in w.folders()])
    may_be_named(w, host, half[0])
    full(w, half[0], "cur")
    cur, listed = (half[0], "cur"), []
    near = w.records.half(cur).own_ended[host]
    when = time.monotonic()
    w.oracle.check(host, cur)
    with w.hosts[host].acting(), contextlib.ExitStack() as stack:
        for h in (half, cur):
            fd = stack.enter_context(opened(w.path(host, *h)))
            listed += listing(fd)
            if h == half:
                w.rename(None, half, name, cur, f"{message}:2,")
            w.records.looked(host, h, when)
    lag = near or any(w.records.may_lag(host, h, message, when) for h in (half, cur))
    if message not in {message_of(e[2]) for e in listed} and not lag:
        w.oracle.wrong("incomplete", host, cur, f"{message} is in neither half")
    w.count("C12")


@op(2, draw_c)
def c13(w, host, message, new, flag, way):
    """An own change; its folder leaves the memory, comes back from an index that lags behind, and is opened."""
    half, name = a_cur(w, host, message, windows=False)
    h = w.hosts[host]
    if w.params["conf"]["cache_bytes"] == "1G":
        raise Nothing("nothing is evicted")
    w.oracle.check(host, half)
    loads = h.m.count("loads")
    w.rename(host, half, name, half, toggled(name, flag))
    for other in w.halves():
        if other != half:
            w.oracle.check(host, other, sample=0)
            w.oracle.check(host, other, sample=0)
    w.oracle.check(host, half)
    w.count("C13", int(h.m.count("loads") > loads))


@op(2, lambda w, rng: {**draw_half(w, rng), "own": rng.random() < 0.5})
def c14(w, host, half, message, own):
    """A handle is open, a change comes, the handle's time is asked for, and then it is read."""
    half = begin_reading(w, host, half)[0]
    full(w, *half)
    h = w.hosts[host]
    with h.acting(), opened(w.path(host, *half)) as fd:
        w.create(host if own else None, half, message)
        shown = os.fstat(fd).st_mtime_ns
        h.remembers[half] = (shown, {e[2] for e in listing(fd)}, False)
    w.oracle.poll(host, half)
    w.count("C14")


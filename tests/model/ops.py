# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens in a world. An operation is chosen by a function that draws its arguments, and done by one that gets them by
name and nothing else: so a line of the log replays it, also where lines before it are left out (it then finds nothing to do).
`host` is a number, or None: a silent writer below. Messages are named by their base name, wherever they are by then."""

import contextlib
import os
import time

from daemon import ADD, NEW, CUR, REMOVE, RENAME, ROLE_NOTIFY, Client, Stamp, change, event, message, put_str, stand_still, NOTIFY
from host import getdents, opened
from oracle import listing
from record import message_of
from world import FOLDERS, HALVES, Nothing

OPS = {}  # name -> (weight, choose, do)
FLAGS = "DFRST"


def op(weight, choose):
    def add(do):
        OPS[do.__name__] = (weight, choose, do)
        return do

    return add


# -- drawing arguments


def anyone(w, rng):
    return rng.choice([None, *range(len(w.hosts))])


def a_host(w, rng):
    return rng.randrange(len(w.hosts))


def one_with(w, rng, that):
    hosts = [h.number for h in w.hosts if that(h)]
    if not hosts:
        raise Nothing("none")
    return rng.choice(hosts)


def a_folder(w, rng):
    return rng.choice(w.folders())


def a_half(w, rng):
    return (a_folder(w, rng), rng.choice(HALVES))


def a_message(w, rng, *subs):
    found = w.messages(*[(f, s) for f in w.folders() for s in subs or HALVES])
    if not found:
        raise Nothing("no message")
    return message_of(rng.choice(found)[1])


def a_new_message(w, rng):
    w.params["number"] = w.params.get("number", 0) + 1
    n = w.params["number"]
    return f"{1600000000 + n}.M{n}P1.host" + ("x" * rng.choice((1, 1, 150)) if n % 3 == 0 else "")


def flags_of(name):
    return name.partition(":2,")[2]


def full(w, folder, sub):
    """Folders stay small."""
    if len(w.on_disk((folder, sub))) > 14:
        raise Nothing("full")


# -- mail


def draw_deliver(w, rng):
    return {"host": anyone(w, rng), "folder": a_folder(w, rng), "message": a_new_message(w, rng), "link": rng.random() < 0.5}


@op(14, draw_deliver)
def deliver(w, host, folder, message, link=True):
    w.need_folder(folder)
    full(w, folder, "new")
    tmp = w.to_tmp(host, folder, message)
    if link:
        w.link(host, tmp, (folder, "new"), message)
        w.from_tmp(host, folder, message)
    else:
        with w.records.changing(host, {(folder, "new"): [(message, None)]}), w.acting(host):
            os.rename(w.path(host, tmp), w.path(host, folder, "new", message))


def draw_move(w, rng):
    flags = "".join(sorted(rng.sample(FLAGS, rng.randrange(3))))
    return {"host": anyone(w, rng), "message": a_message(w, rng, "new"), "flags": flags}


@op(12, draw_move)
def move_to_cur(w, host, message, flags):
    half, name = w.find(message, [(f, "new") for f in w.folders()])
    full(w, half[0], "cur")
    w.rename(host, half, name, (half[0], "cur"), f"{message}:2,{flags}")


def draw_flag(w, rng):
    return {"host": anyone(w, rng), "message": a_message(w, rng, "cur"), "flag": rng.choice(FLAGS)}


def reflag(w, host, message, flags):
    half, name = w.find(message, [(f, "cur") for f in w.folders()])
    new = f"{message}:2," + "".join(sorted(flags(set(flags_of(name)))))
    if new == name:
        raise Nothing("has it")
    w.rename(host, half, name, half, new)


@op(14, draw_flag)
def flag(w, host, message, flag):
    reflag(w, host, message, lambda has: has | {flag})


@op(8, draw_flag)
def unflag(w, host, message, flag):
    reflag(w, host, message, lambda has: has - {flag})


@op(6, lambda w, rng: {"host": anyone(w, rng), "message": a_message(w, rng), "folder": a_folder(w, rng), "copy": a_new_message(w, rng)})
def link_copy(w, host, message, folder, copy):
    """As Dovecot copies: by a hard link, into cur/, under a name of its own."""
    w.need_folder(folder)
    full(w, folder, "cur")
    half, name = w.find(message)
    w.link(host, os.path.join(*half, name), (folder, "cur"), copy + ":2,")


@op(8, lambda w, rng: {"host": anyone(w, rng), "folder": a_folder(w, rng), "message": a_new_message(w, rng), "flags": rng.choice(FLAGS)})
def append(w, host, folder, message, flags):
    w.need_folder(folder)
    full(w, folder, "cur")
    tmp = w.to_tmp(host, folder, message)
    w.link(host, tmp, (folder, "cur"), f"{message}:2,{flags}")
    w.from_tmp(host, folder, message)


@op(14, lambda w, rng: {"host": anyone(w, rng), "message": a_message(w, rng)})
def expunge(w, host, message):
    w.unlink(host, *w.find(message))


@op(3, lambda w, rng: {"host": anyone(w, rng), "message": a_message(w, rng), "same": rng.random() < 0.5})
def expunge_and_put_back(w, host, message, same):
    """The same name leads to another file then. (A third one's kernel may know the name still, and refuse to make it.)"""
    half, name = w.find(message)
    w.unlink(host, half, name)
    w.create(host if same else None, half, name)


# -- folders


def draw_new_folder(w, rng):
    left = [f for f in FOLDERS[1:] if f not in w.folders()]
    if not left:
        raise Nothing("all are there")
    return {"host": anyone(w, rng), "folder": rng.choice(left)}


@op(6, draw_new_folder)
def create_folder(w, host, folder):
    may_be_named(w, host, folder)
    if folder in w.folders():
        raise Nothing("is there")
    w.make_folder(host, folder)


def may_be_named(w, host, folder):
    w.records.named(host, folder)


def draw_old_folder(w, rng):
    left = w.folders()[1:]
    if not left:
        raise Nothing("none is there")
    return {"host": anyone(w, rng), "folder": rng.choice(left)}


@op(3, draw_old_folder)
def drop_folder(w, host, folder):
    w.need_folder(folder)
    may_be_named(w, host, folder)
    w.drop_folder(host, folder)


@op(1, lambda w, rng: {**draw_old_folder(w, rng), "to": draw_new_folder(w, rng)["folder"]})
def rename_folder(w, host, folder, to):
    w.need_folder(folder)
    may_be_named(w, host, folder)
    may_be_named(w, host, to)
    if to in w.folders():
        raise Nothing("is there")
    w.rename_folder(host, folder, to)


# -- readers


@op(5, lambda w, rng: {"host": a_host(w, rng), "half": a_half(w, rng)})
def list_half(w, host, half):
    w.oracle.check(host, tuple(half))


@op(5, lambda w, rng: {"host": a_host(w, rng), "half": a_half(w, rng)})
def poll(w, host, half):
    w.oracle.poll(host, tuple(half))


def begin_reading(w, host, half):
    half = tuple(half)
    w.need_folder(half[0])
    may_be_named(w, host, half[0])
    return half, {"half": half, "before": w.on_disk(half), "when": time.monotonic(), "incarnation": w.records.incarnation(half)}


@op(4, lambda w, rng: {"host": a_host(w, rng), "half": a_half(w, rng), "size": rng.choice((300, 600)), "pieces": rng.randrange(4)})
def seek(w, host, half, size, pieces):
    """seekdir(3): what follows a place is the same when one comes back to it."""
    half, reading = begin_reading(w, host, half)
    with w.hosts[host].acting(), opened(w.path(host, *half)) as fd:
        at, got = 0, []
        for _ in range(pieces):
            piece = getdents(fd, size)
            got += piece
            at = piece[-1][1] if piece else at
        rest = listing(fd)
        os.lseek(fd, at, os.SEEK_SET)
        again = listing(fd)
    w.records.looked(host, half, reading["when"])
    assert at == 0 or rest == again, f"seek: {rest}, and then {again}"
    names = [(e[0], e[2], e[3].decode()) for e in got if e[3] not in (b".", b"..")] if at else []
    w.oracle.judge(host, half, names + again, reading["before"], w.on_disk(half), reading["when"])


@op(4, lambda w, rng: {"host": a_host(w, rng), "half": a_half(w, rng)})
def open_slowly(w, host, half):
    """A listing that goes on while other things happen."""
    half, reading = begin_reading(w, host, half)
    if len(w.hosts[host].handles) > 3:
        raise Nothing("enough")
    fd = w.open_half(host, half)
    w.hosts[host].handles.append({**reading, "fd": fd, "got": listing_piece(fd)})
    w.records.looked(host, half, reading["when"])


def listing_piece(fd):
    return [(e[0], e[2], e[3].decode()) for e in getdents(fd, 300) if e[3] not in (b".", b"..")]


@op(4, lambda w, rng: {"host": one_with(w, rng, lambda h: h.handles), "rewind": rng.random() < 0.5})
def read_on(w, host, rewind):
    """What was there all the time is in it; after a rewind all is as of now."""
    if not w.hosts[host].handles:
        raise Nothing("no handle")
    handle = w.hosts[host].handles.pop(0)
    fd, half = handle["fd"], handle["half"]
    try:
        if w.records.incarnation(half) != handle["incarnation"]:
            return
        rest = listing(fd)
        present(w, host, half, handle["before"], handle["got"] + rest, handle["when"])
        if rewind and not w.records.may_be_another(host, half[0], time.monotonic()):
            when, disk = time.monotonic(), w.on_disk(half)
            os.lseek(fd, 0, os.SEEK_SET)
            w.oracle.judge(host, half, listing(fd), disk, disk, when)
            w.records.looked(host, half, when)
            w.count("rewind")
    finally:
        os.close(fd)


def present(w, host, half, before, listed, when):
    names = [e[2] for e in listed]
    assert len(names) == len(set(names)), f"doubled: {names}"
    here = {message_of(n) for n in before} - {m for m, t in w.records.half(half).foreign[host].items() if t > when}
    lost = {m for m in here if m not in {message_of(n) for n in names} and not w.records.may_lag(host, half, m, when)}
    if lost:
        w.oracle.wrong("incomplete", host, half, f"a slow reader misses {lost}")


# -- programs


@op(2, lambda w, rng: {"host": a_host(w, rng), "kill": rng.random() < 0.5, "away": rng.random() < 0.5})
def restart_maildexd(w, host, kill, away):
    w.oracle.counters(w.hosts[host])
    w.stop_maildexd(host, kill)
    if not away:
        w.start_maildexd(host)


@op(6, lambda w, rng: {"host": one_with(w, rng, lambda h: not h.m.process)})
def start_maildexd(w, host):
    w.start_maildexd(host)


@op(1, lambda w, rng: {"host": a_host(w, rng), "kill": rng.random() < 0.5})
def restart_maildexfs(w, host, kill):
    w.restart_maildexfs(host, kill)


@op(1, lambda w, rng: {"host": a_host(w, rng), "kill": rng.random() < 0.5})
def restart_both(w, host, kill):
    w.oracle.counters(w.hosts[host])
    w.stop_maildexd(host, kill)
    w.restart_maildexfs(host, kill)
    w.start_maildexd(host)


@op(2, lambda w, rng: {"host": a_host(w, rng)})
def delay_all_events(w, host):
    """maildexd stands still: what it is told and what it tells comes late."""
    h = w.hosts[host]
    if h.stopped or not h.m.process:
        raise Nothing("is away")
    stand_still(h.m.process)
    h.stopped = True


@op(8, lambda w, rng: {"host": one_with(w, rng, lambda h: h.stopped)})
def go_on(w, host):
    if not w.hosts[host].stopped:
        raise Nothing("runs")
    w.hosts[host].wakes()


# -- events


def notify(w, host, half, name):
    """As maildex-notify, which waits for no answer here: maildexd may stand still."""
    h = w.hosts[host]
    if not h.m.process:
        raise Nothing("nobody to tell")
    with contextlib.closing(Client(h.m.socket, ROLE_NOTIFY)) as c:
        c.send(message(NOTIFY, put_str(os.path.join(*half, name))))
        if not h.stopped:
            c.recv()


HOW = ("once", "doubled", "late", "dropped")


def draw_told(w, rng):
    return {"host": a_host(w, rng), "folder": a_folder(w, rng), "message": a_new_message(w, rng), "how": rng.choice(HOW)}


@op(8, draw_told)
def deliver_and_tell(w, host, folder, message, how):
    """By an agent with the hook; its event comes once, twice, late, or is lost."""
    deliver(w, None, folder, message)
    happens_to_event(w, host, how, lambda: notify(w, host, (folder, "new"), message))


def happens_to_event(w, host, how, tell):
    w.count({"once": "event", "doubled": "double an event", "late": "delay an event", "dropped": "drop an event"}[how])
    if how in ("once", "doubled"):
        tell()
    if how in ("late", "doubled"):
        w.hosts[host].late.append(tell)


@op(6, lambda w, rng: {"host": one_with(w, rng, lambda h: h.late), "how": rng.randrange(4)})
def late_event(w, host, how):
    if not w.hosts[host].late:
        raise Nothing("none is late")
    tell = w.hosts[host].late.pop(how % len(w.hosts[host].late))
    tell()


def draw_peer(w, rng):
    return {
        "host": a_host(w, rng), "message": a_message(w, rng, "cur"), "flag": rng.choice(FLAGS), "how": rng.choice(HOW),
        "what": rng.choice(("flag", "expunge", "append")), "windowed": rng.random() < 0.7,
    }  # fmt: skip


@op(8, draw_peer)
def change_by_peer(w, host, message, flag, what, how, windowed):
    """By another overlay that this host is fed by: its event has a window."""
    half, name = w.find(message, [(f, "cur") for f in w.folders()])
    h = w.hosts[host]
    h.feed()
    pre, ino = stamp_at(w, host, half), w.on_disk(half)[name]
    if what == "expunge":
        changes = [change(REMOVE, name)]
        w.unlink(None, half, name)
    elif what == "append":
        new = f"{message}a:2,{flag}"
        if any(message_of(n) == message + "a" for _, n in w.messages()):
            raise Nothing("is there")
        w.create(None, half, new)
        changes = [change(ADD, new, ino=w.on_disk(half)[new])]
    else:
        new = f"{message}:2," + "".join(sorted(set(flags_of(name)) ^ {flag}))
        changes = [change(RENAME, new, name, ino=ino)]
        w.rename(None, half, name, half, new)
    window = (pre, stamp_at(w, host, half)) if windowed and pre else None
    h.peer_sequence += 1  # also of what is lost
    sequence, epoch = h.peer_sequence, h.peer_epoch

    def tell():
        if h.m.process and not h.stopped:
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                h.feed().send(bytes([1, EVENT_KIND]) + event(half[0], (NEW, CUR)[half[1] == "cur"], changes, window, epoch, sequence)[1:])

    happens_to_event(w, host, how, tell)


EVENT_KIND = 2


def stamp_at(w, host, half):
    """As a maildexfs reads it; None before this host knows the filesystem's number."""
    known = w.hosts[host].m.query("SELECT known_dev FROM half WHERE known_dev != 0 LIMIT 1")
    if not known:
        return None
    ctime, mtime = w.stamps.of(w.low(*half))
    size = len(w.on_disk(half))
    return Stamp((known[0][0] % 2**64, os.stat(w.low(*half)).st_ino, ctime, mtime, size, int(bool(w.stamps.sized))))


# -- the server


@op(1, lambda w, rng: {"ms": rng.choice((7, 40, 300, 3600000))})
def clock_back(w, ms):
    if w.stamps.tick_ns == 10**9 and ms < 3600000:
        raise Nothing("the same seconds would come again: nobody could tell")
    if len(w.stamps.steps) > 5:
        raise Nothing("enough")
    w.clock_back(ms)


@op(3, lambda w, rng: {"host": anyone(w, rng), "half": a_half(w, rng), "how": rng.choice(("same", "old", "older"))})
def times_back(w, host, half, how):
    half = tuple(half)
    w.need_folder(half[0])
    if host is not None:
        may_be_named(w, host, half[0])
    st = os.stat(w.low(*half))
    ns = {"same": st.st_mtime_ns, "old": st.st_mtime_ns - 10**9, "older": 10**18 + 5}[how]
    w.utime(host, half, (ns, ns))


@op(3, lambda w, rng: {"half": a_half(w, rng)})
def take_snapshot(w, half):
    w.need_folder(half[0])
    w.take_snapshot(tuple(half))


def draw_roll_back(w, rng):
    if not w.snapshots:
        raise Nothing("no snapshot")
    return {"half": rng.choice(sorted(w.snapshots))}


@op(4, draw_roll_back)
def roll_back(w, half):
    w.need_folder(half[0])
    w.roll_back(tuple(half))

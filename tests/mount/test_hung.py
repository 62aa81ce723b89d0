# SPDX-License-Identifier: GPL-2.0-or-later
"""Two storage mounts below root, one of which hangs with twenty sessions in it: whoever works on the other does not notice. (How
little is measured by make bench.) Who is stuck can be killed, the mount can be taken away."""

import contextlib
import fcntl
import operator
import os
import signal
import subprocess
from errno import EAGAIN

import pytest

from daemon import WAIT_S, until
from host import ls, refused, touch
from storages import STUCK, TwoStorages, delivering, flagging, hung, listing, looking, reading


@pytest.fixture(name="m")
def two_storages():
    with TwoStorages() as m:
        yield m.fs_start()


def a_day(m, n):
    """What sessions do in a mailbox: logins, deliveries, flags, reads, locks, expunges."""
    top = m.up(f"well/u{n}")
    for half in ("new", "cur"):
        ls(f"{top}/{half}")
    touch(f"{top}/tmp/17{n}.M1P1.host", b"x" * 9000)
    os.rename(f"{top}/tmp/17{n}.M1P1.host", f"{top}/new/17{n}.M1P1.host")
    os.rename(f"{top}/new/17{n}.M1P1.host", f"{top}/cur/17{n}.M1P1.host:2,")
    os.rename(f"{top}/cur/17{n}.M1P1.host:2,", f"{top}/cur/17{n}.M1P1.host:2,S")
    with open(f"{top}/cur/17{n}.M1P1.host:2,S", "rb") as f:
        assert len(f.read()) == 9000
    os.mkdir(f"{top}/.Sub")
    os.rmdir(f"{top}/.Sub")
    assert os.fsencode(f"17{n}.M1P1.host:2,S") in ls(f"{top}/cur")
    os.unlink(f"{top}/cur/17{n}.M1P1.host:2,S")
    assert os.fsencode(f"17{n}.M1P1.host:2,S") not in ls(f"{top}/cur")


def test_the_other_storage_is_served(m, processes):
    with hung(m, processes) as stuck:
        for n in range(STUCK):
            a_day(m, n)
        assert not any(p.answers(0.001) for p in stuck)
    for half in ("new", "cur"):
        for n in range(STUCK):
            m.same(f"well/u{n}", half)
            m.same(f"slow/u{n}", half)


def test_threads_that_a_hang_made_rest(m, processes):
    """They are there for the next one; who is woken for each request is one of a few."""
    stat, read = ("262", "332"), ("0", "275")  # newfstatat, statx; read, splice
    with hung(m, processes, [looking], sessions=40):
        until("40 threads to be stuck", lambda: m.fs_within(*stat) >= 40)
    for n in range(STUCK):
        a_day(m, n)
    until("all to be done", lambda: m.fs_within(*stat) == 0)
    assert 1 <= m.fs_within(*read) <= 16
    with hung(m, processes, [looking], sessions=40):
        until("40 threads to be stuck again", lambda: m.fs_within(*stat) >= 40)
        a_day(m, 0)


def test_more_sessions_than_workers(m, processes):
    """What is too much of one storage waits without a worker."""
    m.fs_restart(threads=8)
    with hung(m, processes):
        for n in range(STUCK):
            a_day(m, n)
        assert m.count("requests.waited") > 0
    for n in range(STUCK):
        m.same(f"slow/u{n}/cur")


@pytest.mark.parametrize("call", [listing, reading, flagging, delivering])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_is_stuck_can_be_killed(m, processes, call, number):
    with hung(m, processes, [call], 1) as (session,):
        os.kill(session.pid, number)
        os.waitpid(session.pid, 0)
        session.pid = 0
        a_day(m, 1)
        assert m.count("requests.killed") == 1
    # What it was in the middle of came to its end below; nothing of it is left.
    until("its call to end", lambda: m.slow.waiting() == 0)
    m.same("slow/u0/cur")
    names = ls(m.up("slow/u0/cur"))
    assert len(names) == 5


def making(top):
    os.mknod(f"{top}/tmp/18.M1P1.host")


def linking(top):
    os.link(f"{top}/cur/1600000001.M1P1.host:2,S", f"{top}/tmp/18.M1P1.host")


def subscribing(top):
    os.mkdir(f"{top}/.Sub")


def expunging(top):
    os.unlink(f"{top}/cur/1600000001.M1P1.host:2,S")


def cutting(top):
    os.truncate(f"{top}/cur/1600000001.M1P1.host:2,S", 3)


# Call of the storage: who makes it, the name that it is about. (Who reads ahead or closes is not waited for.)
IN_EACH = {
    "getattr": (looking, "new"),
    "open": (reading, "cur/*"),
    "create": (delivering, "tmp/*"),
    "write": (delivering, "tmp/*"),
    "truncate": (cutting, "cur/*"),
    "rename": (flagging, "cur/*"),
    "unlink": (expunging, "cur/*"),
    "link": (linking, "tmp/*"),
    "mknod": (making, "tmp/*"),
    "mkdir": (subscribing, ".Sub"),
    "opendir": (listing, "cur"),
    "readdir": (listing, "cur"),
}


@pytest.mark.parametrize("call", IN_EACH)
def test_killed_in_each_call(m, processes, call):
    """Whoever answers a call that nobody waits for any more must not need what ended with the caller."""
    what, name = IN_EACH[call]
    session = processes()
    with m.slow.hold(call, f"u0/{name}") as held:
        session.begin(what, m.up("slow/u0"))
        held.wait()
        session.kill()
        a_day(m, 1)
    until("its call to end", lambda: m.slow.waiting() == 0)
    a_day(m, 2)
    assert m.count("requests.killed") == 1
    for half in ("new", "cur", "tmp"):
        m.same("slow/u0", half)


def test_killed_while_it_waits_for_a_worker(m, processes):
    m.fs_restart(threads=4)
    with hung(m, processes) as stuck:
        until("some to wait", lambda: m.count("requests.waited") >= 10)
        for p in stuck:
            p.kill()
        a_day(m, 1)
    for n in range(STUCK):
        m.same(f"slow/u{n}/cur")


def test_another_signal_is_no_answer(m, processes):
    """A server's timer does not make its stat(2) fail, which it would not on NFS."""
    with hung(m, processes, [looking], 1) as (session,):
        os.kill(session.pid, signal.SIGCHLD)
        a_day(m, 1)
        assert not session.answers(0.2)
        assert m.count("requests.killed") == 0


def test_umount_l(m, processes):
    with hung(m, processes) as stuck:
        subprocess.run(["umount", "-l", m.up()], check=True, timeout=WAIT_S)
        assert not os.path.ismount(m.up())
        for p in stuck:
            p.kill()
    m.fs.wait(WAIT_S)


def test_one_mailbox_that_hangs(m, processes):
    """Others beside it are found, also those that the kernel does not know yet."""
    one, other = processes(), processes()
    with m.slow.hold("getattr", "u1") as held:
        one.begin(os.stat, m.up("slow/u1"))
        held.wait()
        other.begin(ls, m.up("slow/u2/cur"))
        assert other.answers(WAIT_S)
    assert one.end() and len(other.end()) == 5


def test_reads_ahead_of_a_large_file(m, processes):
    """More of them than there are workers."""
    for n in range(STUCK):
        with open(os.path.join(m.slow.made, f"u{n}/cur/1600000001.M1P1.host:2,S"), "wb") as f:
            f.write(b"x" * 3000000)
    m.fs_restart(threads=8)
    for n in range(STUCK):
        ls(m.up(f"slow/u{n}/cur"))
    with hung(m, processes, [reading]):
        for n in range(STUCK):
            a_day(m, n)


# The call, and what the storage calls it.
LOCKS = pytest.mark.parametrize("call, below", [(fcntl.lockf, "lock"), (fcntl.flock, "flock")])


def waiting_for_a_lock(processes, path, call, handler=None):
    """Returns who holds it, by which descriptor, and who waits (with a handler of SIGUSR1)."""
    touch(path)
    both = [processes(), processes()]
    (holder, waiter), (held, wanted) = both, [p(os.open, path, os.O_RDWR) for p in both]
    holder(call, held, fcntl.LOCK_EX)
    if handler:
        waiter(signal.signal, signal.SIGUSR1, handler)
    waiter.begin(call, wanted, fcntl.LOCK_EX)
    assert not waiter.answers(0.1)
    return holder, held, waiter


@LOCKS
def test_locks_that_are_waited_for(m, processes, call, below):
    """Each is asked for again and again: on storage that hangs that takes nobody else's turn. Who waits can be killed."""
    _, _, stuck = waiting_for_a_lock(processes, m.up("slow/u0/lock"), call)
    holder, held, waiter = waiting_for_a_lock(processes, m.up("well/u0/lock"), call)
    with m.slow.hold(below, "u0/lock") as tried:
        tried.wait()
        holder(call, held, fcntl.LOCK_UN)
        assert waiter.answers(WAIT_S) and waiter.end() is None
        third = processes()
        wanted = third(os.open, m.up("well/u0/lock"), os.O_RDWR)
        third.begin(call, wanted, fcntl.LOCK_EX)
        stuck.kill()
        assert not third.answers(0.1)
        waiter.kill()
        assert third.answers(WAIT_S) and third.end() is None


@LOCKS
def test_a_lock_that_comes_too_late(m, processes, call, below):
    """Who waited was killed while it was asked for: nobody has it."""
    holder, held, waiter = waiting_for_a_lock(processes, m.up("slow/u0/lock"), call)
    with m.slow.hold(below, "u0/lock") as tried:
        tried.wait()
        waiter.kill()
        holder.begin(call, held, fcntl.LOCK_UN)
        tried.release()
        assert holder.end() is None
    until("its call to end", lambda: m.slow.waiting() == 0)
    holder(call, held, fcntl.LOCK_EX)
    holder(call, held, fcntl.LOCK_UN)
    assert ls(m.up("slow/u0"))


def test_killed_after_another_signal(m, processes):
    """As systemd does it: the kernel tells of the first only."""
    _, _, waiter = waiting_for_a_lock(processes, m.up("slow/u0/lock"), fcntl.flock, operator.is_)
    with m.slow.hold("flock", "u0/lock") as tried:
        tried.wait()
        os.kill(waiter.pid, signal.SIGUSR1)
        assert not waiter.answers(0.1)
        waiter.kill()
        a_day(m, 1)


def test_everybody_gets_a_turn(m, processes):
    """On storage that is slow to answer."""
    m.slow.delay("flock", "*", 30)
    path = m.up("slow/u0/lock")
    touch(path)
    holder, waiters = processes(), [processes() for _ in range(12)]
    held = holder(os.open, path, os.O_RDWR)
    holder(fcntl.flock, held, fcntl.LOCK_EX)
    for w in waiters:
        w.fd = w(os.open, path, os.O_RDWR)
        w.begin(fcntl.flock, w.fd, fcntl.LOCK_SH)
    assert not any(w.answers(0.01) for w in waiters)
    holder(fcntl.flock, held, fcntl.LOCK_UN)
    for w in waiters:
        assert w.end() is None


@LOCKS
def test_interrupted_while_a_lock_is_asked_for(m, processes, call, below):
    """By a signal that does not kill: it asks again, or has it already."""
    holder, held, waiter = waiting_for_a_lock(processes, m.up("slow/u0/lock"), call, operator.is_)
    with m.slow.hold(below, "u0/lock") as tried:
        tried.wait()
        os.kill(waiter.pid, signal.SIGUSR1)
        assert not waiter.answers(0.1)
        holder(call, held, fcntl.LOCK_UN)
        tried.release()
    assert waiter.end() is None
    refused(EAGAIN, holder, call, held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waiter.kill()
    holder(call, held, fcntl.LOCK_EX)


def open_below(m, path):
    """How many descriptors of that file maildexfs has."""
    found, fds = 0, f"/proc/{m.fs.pid}/fd"
    for fd in os.listdir(fds):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += os.readlink(os.path.join(fds, fd)) == m.low(path)
    return found


@LOCKS
def test_killed_when_it_asked_for_a_lock(m, processes, call, below):
    """Somebody else has it: the request must not wait for its turn, its file is about to be closed."""
    path = m.up("slow/u0/lock")
    touch(path)
    holder, waiter = processes(), processes()
    held, wanted = [p(os.open, path, os.O_RDWR) for p in (holder, waiter)]
    both = open_below(m, "slow/u0/lock")
    holder(call, held, fcntl.LOCK_EX)
    with m.slow.hold(below, "u0/lock") as tried:
        waiter.begin(call, wanted, fcntl.LOCK_EX)
        tried.wait()
        waiter.kill()
    # The holder of a lock of fcntl(2) has a second descriptor.
    until("its file to be closed", lambda: open_below(m, "slow/u0/lock") == both - (call is fcntl.flock))
    holder(call, held, fcntl.LOCK_UN)
    holder(call, held, fcntl.LOCK_EX)

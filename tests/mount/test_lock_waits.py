# SPDX-License-Identifier: GPL-2.0-or-later
"""Law 6, beside test_locks.py: who owns a lock, and what becomes of those that wait."""

import fcntl
import os
import signal
import time
from errno import EAGAIN, EBADF, EINTR

import pytest

from host import eventually, opened, refused, touch

SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB

@pytest.fixture(name="m")
def mounted_with_a_file(mounted):
    touch(mounted.low("u/file"), b"x" * 100)
    return mounted


def pair(m, processes, where=("up", "up")):
    """Two processes that have the file open through the mount (up) or below it (low)."""
    both = [processes(), processes()]
    return [(p, p(os.open, getattr(m, at)("u/file"), os.O_RDWR)) for p, at in zip(both, where)]


def test_closing_one_of_two_descriptors_drops_the_locks(m, processes):
    """POSIX: one process is one owner."""
    (a, fa), (b, fb) = pair(m, processes)
    second = a(os.open, m.up("u/file"), os.O_RDWR)
    a(fcntl.lockf, fa, EX | NB)
    a(fcntl.lockf, second, EX | NB)
    refused(EAGAIN, b, fcntl.lockf, fb, EX | NB)
    a(os.close, second)
    b(fcntl.lockf, fb, EX | NB)
    refused(EAGAIN, a, fcntl.lockf, fa, SH | NB)


def test_flock_belongs_to_the_open_file(m, processes):
    """Two opens of one process exclude each other; a duplicate shares."""
    (a, fa), _ = pair(m, processes)
    second = a(os.open, m.up("u/file"), os.O_RDWR)
    a(fcntl.flock, fa, EX | NB)
    refused(EAGAIN, a, fcntl.flock, second, EX | NB)
    dup = a(os.dup, fa)
    a(os.close, fa)
    refused(EAGAIN, a, fcntl.flock, second, EX | NB)
    a(fcntl.flock, dup, UN)
    a(fcntl.flock, second, EX | NB)


def test_read_only_and_write_only_descriptors(m, processes):
    a = processes()
    ro, wo = a(os.open, m.up("u/file"), os.O_RDONLY), a(os.open, m.up("u/file"), os.O_WRONLY)
    a(fcntl.lockf, ro, SH | NB)
    a(fcntl.lockf, wo, EX | NB)
    refused(EBADF, a, fcntl.lockf, ro, EX | NB)
    refused(EBADF, a, fcntl.lockf, wo, SH | NB)


def test_far_behind_the_end_and_split_ranges(m, processes):
    (a, fa), (b, fb) = pair(m, processes, ("up", "low"))
    a(fcntl.lockf, fa, EX | NB, 30, 0)
    a(fcntl.lockf, fa, UN, 10, 10)
    b(fcntl.lockf, fb, EX | NB, 10, 10)
    refused(EAGAIN, b, fcntl.lockf, fb, SH | NB, 2, 9)
    a(fcntl.lockf, fa, EX | NB, 1, 2**40)
    refused(EAGAIN, b, fcntl.lockf, fb, SH | NB, 0, 2**40)


@pytest.mark.parametrize("call", [fcntl.lockf, fcntl.flock])
@pytest.mark.parametrize("where", [("up", "up"), ("low", "up"), ("up", "low")])
@pytest.mark.parametrize("how", ["unlock", os.close, "kill"])
def test_waiting_lock_is_granted(m, processes, where, call, how):
    """When the holder unlocks, closes or dies, be it above or below."""
    (a, fa), (b, fb) = pair(m, processes, where)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    assert not b.answers(0.1)
    if how == "unlock":
        a(call, fa, UN)
    elif how == "close":
        a(os.close, fa)
    else:
        os.kill(a.pid, signal.SIGKILL)
    assert b.end() is None


@pytest.mark.parametrize("call", [fcntl.lockf, fcntl.flock])
def test_interrupted_waiter_gets_nothing_later(m, processes, call):
    (a, fa), (b, fb) = pair(m, processes)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    assert not b.answers(0.1)
    os.kill(b.pid, signal.SIGUSR1)
    refused(EINTR, b.end)
    a(call, fa, UN)
    a(call, fa, EX | NB)
    refused(EAGAIN, b, call, fb, EX | NB)


@pytest.mark.parametrize("call", [fcntl.lockf, fcntl.flock])
def test_waiting_process_is_killed(m, processes, call):
    (a, fa), (b, fb) = pair(m, processes)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    assert not b.answers(0.1)
    os.kill(b.pid, signal.SIGKILL)
    assert b.ours.recv(100) == b""  # it ended
    a(call, fa, UN)
    c = processes()
    fc = c(os.open, m.up("u/file"), os.O_RDWR)
    eventually("the lock to be free", lambda: c.had(call, fc))


def test_waiters_block_nobody_else(maildex, processes):
    """More waiting locks than threads: listings go on, and each waiter gets its turn, alone."""
    touch(maildex.low("u/file"), b"x")
    maildex.fs_start(threads=4)
    holder, waiters = processes(), [processes() for _ in range(12)]
    fd = holder(os.open, maildex.up("u/file"), os.O_RDWR)
    holder(fcntl.lockf, fd, EX)
    for w in waiters:
        w.fd = w(os.open, maildex.up("u/file"), os.O_RDWR)
        w.begin(fcntl.lockf, w.fd, EX)
    assert not any(w.answers(0.01) for w in waiters)
    for _ in range(20):
        maildex.same("u/cur")
        os.stat(maildex.up("u/file"))
    holder(fcntl.lockf, fd, UN)
    end = time.monotonic() + 60
    while waiters:
        ready = [w for w in waiters if w.answers(0.01)]
        assert len(ready) <= 1 and time.monotonic() < end
        for w in ready:
            w.end()
            w(fcntl.lockf, w.fd, UN)
            waiters.remove(w)


def test_lock_is_the_file_s_whatever_its_name(m, processes):
    (a, fa), (b, fb) = pair(m, processes)
    os.rename(m.up("u/file"), m.up("u/renamed"))
    a(fcntl.lockf, fa, EX | NB)
    refused(EAGAIN, b, fcntl.lockf, fb, EX | NB)
    os.unlink(m.up("u/renamed"))
    refused(EAGAIN, b, fcntl.lockf, fb, EX | NB)
    a(fcntl.lockf, fa, UN)
    b(fcntl.lockf, fb, EX | NB)


def test_unmounted_while_somebody_waits(m, processes):
    """umount -l: the waiter still gets its lock, and maildexfs ends with the last of its users."""
    (a, fa), (b, fb) = pair(m, processes)
    a(fcntl.lockf, fa, EX)
    b.begin(fcntl.lockf, fb, EX)
    assert not b.answers(0.1)
    assert os.system(f"umount -l {m.mnt}") == 0
    a(fcntl.lockf, fa, UN)
    assert b.end() is None
    a.ours.close()
    b.ours.close()
    m._fs_ended()  # pylint: disable=protected-access


@pytest.mark.parametrize("how", ["TERM", "umount -l"])
@pytest.mark.parametrize("call", [fcntl.lockf, fcntl.flock])
def test_ends_while_somebody_waits(m, processes, how, call):
    """Files and directories are open and a lock is wanted: it ends without a trace."""
    (a, fa), (b, fb) = pair(m, processes)
    a(os.open, m.up("u/cur"), os.O_RDONLY)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    with opened(m.up("u/cur")) as fd:
        os.listdir(fd)
        assert not b.answers(0.1)
        if how == "TERM":
            m.fs.send_signal(signal.SIGTERM)
        else:
            assert os.system(f"umount -l {m.mnt}") == 0
            os.kill(b.pid, signal.SIGKILL)
            os.kill(a.pid, signal.SIGKILL)
    m._fs_ended()  # pylint: disable=protected-access

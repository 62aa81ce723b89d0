# SPDX-License-Identifier: GPL-2.0-or-later
"""Law 6, beside test_locks.py: who owns a lock, and what becomes of those that wait."""

import fcntl
import os
import pickle
import signal
import socket
import time
from errno import EAGAIN, EBADF, EINTR

import pytest

from host import eventually, opened, refused, touch

SH, EX, UN, NB = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB
DOES = {"open": os.open, "close": os.close, "dup": os.dup, "lockf": fcntl.lockf, "flock": fcntl.flock}


class Process:
    """Another process that does what it is told, call by call."""

    def __init__(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            self._serve(theirs)
        theirs.close()

    @staticmethod
    def _serve(sock):
        signal.signal(signal.SIGUSR1, Process._interrupted)
        while data := sock.recv(65536):
            name, args = pickle.loads(data)
            try:
                answer = ("value", DOES[name](*args))
            except OSError as e:
                answer = ("errno", e.errno)
            sock.send(pickle.dumps(answer))
        os._exit(0)

    @staticmethod
    def _interrupted(*_):
        raise InterruptedError(EINTR, "interrupted")

    def begin(self, name, *args):
        """A call that may wait."""
        self.ours.send(pickle.dumps((name, args)))

    def end(self):
        self.ours.settimeout(60)
        kind, value = pickle.loads(self.ours.recv(65536))
        if kind == "errno":
            raise OSError(value, os.strerror(value))
        return value

    def __call__(self, name, *args):
        self.begin(name, *args)
        return self.end()

    def answers(self, seconds):
        """Does the call under way end within so long?"""
        self.ours.settimeout(seconds)
        try:
            return bool(self.ours.recv(65536, socket.MSG_PEEK))
        except TimeoutError:
            return False

    def had(self, call, fd):
        try:
            self(call, fd, EX | NB)
        except BlockingIOError:
            return False
        return True

    def stop(self):
        self.ours.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture(name="m")
def mounted_with_a_file(mounted):
    touch(mounted.low("u/file"), b"x" * 100)
    return mounted


@pytest.fixture(name="processes")
def some_processes():
    """Makes processes and ends them."""
    made = []

    def make():
        made.append(Process())
        return made[-1]

    yield make
    for p in made:
        p.stop()


def pair(m, processes, where=("up", "up")):
    """Two processes that have the file open through the mount (up) or below it (low)."""
    both = [processes(), processes()]
    return [(p, p("open", getattr(m, at)("u/file"), os.O_RDWR)) for p, at in zip(both, where)]


def test_closing_one_of_two_descriptors_drops_the_locks(m, processes):
    """POSIX: one process is one owner."""
    (a, fa), (b, fb) = pair(m, processes)
    second = a("open", m.up("u/file"), os.O_RDWR)
    a("lockf", fa, EX | NB)
    a("lockf", second, EX | NB)
    refused(EAGAIN, b, "lockf", fb, EX | NB)
    a("close", second)
    b("lockf", fb, EX | NB)
    refused(EAGAIN, a, "lockf", fa, SH | NB)


def test_flock_belongs_to_the_open_file(m, processes):
    """Two opens of one process exclude each other; a duplicate shares."""
    (a, fa), _ = pair(m, processes)
    second = a("open", m.up("u/file"), os.O_RDWR)
    a("flock", fa, EX | NB)
    refused(EAGAIN, a, "flock", second, EX | NB)
    dup = a("dup", fa)
    a("close", fa)
    refused(EAGAIN, a, "flock", second, EX | NB)
    a("flock", dup, UN)
    a("flock", second, EX | NB)


def test_read_only_and_write_only_descriptors(m, processes):
    a = processes()
    ro, wo = a("open", m.up("u/file"), os.O_RDONLY), a("open", m.up("u/file"), os.O_WRONLY)
    a("lockf", ro, SH | NB)
    a("lockf", wo, EX | NB)
    refused(EBADF, a, "lockf", ro, EX | NB)
    refused(EBADF, a, "lockf", wo, SH | NB)


def test_far_behind_the_end_and_split_ranges(m, processes):
    (a, fa), (b, fb) = pair(m, processes, ("up", "low"))
    a("lockf", fa, EX | NB, 30, 0)
    a("lockf", fa, UN, 10, 10)
    b("lockf", fb, EX | NB, 10, 10)
    refused(EAGAIN, b, "lockf", fb, SH | NB, 2, 9)
    a("lockf", fa, EX | NB, 1, 2**40)
    refused(EAGAIN, b, "lockf", fb, SH | NB, 0, 2**40)


@pytest.mark.parametrize("call", ["lockf", "flock"])
@pytest.mark.parametrize("where", [("up", "up"), ("low", "up"), ("up", "low")])
@pytest.mark.parametrize("how", ["unlock", "close", "kill"])
def test_waiting_lock_is_granted(m, processes, where, call, how):
    """When the holder unlocks, closes or dies, be it above or below."""
    (a, fa), (b, fb) = pair(m, processes, where)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    assert not b.answers(0.1)
    if how == "unlock":
        a(call, fa, UN)
    elif how == "close":
        a("close", fa)
    else:
        os.kill(a.pid, signal.SIGKILL)
    assert b.end() is None


@pytest.mark.parametrize("call", ["lockf", "flock"])
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


@pytest.mark.parametrize("call", ["lockf", "flock"])
def test_waiting_process_is_killed(m, processes, call):
    (a, fa), (b, fb) = pair(m, processes)
    a(call, fa, EX)
    b.begin(call, fb, EX)
    assert not b.answers(0.1)
    os.kill(b.pid, signal.SIGKILL)
    assert b.ours.recv(100) == b""  # it ended
    a(call, fa, UN)
    c = processes()
    fc = c("open", m.up("u/file"), os.O_RDWR)
    eventually("the lock to be free", lambda: c.had(call, fc))


def test_waiters_block_nobody_else(maildex, processes):
    """More waiting locks than threads: listings go on, and each waiter gets its turn, alone."""
    touch(maildex.low("u/file"), b"x")
    maildex.fs_start(threads=4)
    holder, waiters = processes(), [processes() for _ in range(12)]
    fd = holder("open", maildex.up("u/file"), os.O_RDWR)
    holder("lockf", fd, EX)
    for w in waiters:
        w.fd = w("open", maildex.up("u/file"), os.O_RDWR)
        w.begin("lockf", w.fd, EX)
    assert not any(w.answers(0.01) for w in waiters)
    for _ in range(20):
        maildex.same("u/cur")
        os.stat(maildex.up("u/file"))
    holder("lockf", fd, UN)
    end = time.monotonic() + 60
    while waiters:
        ready = [w for w in waiters if w.answers(0.01)]
        assert len(ready) <= 1 and time.monotonic() < end
        for w in ready:
            w.end()
            w("lockf", w.fd, UN)
            waiters.remove(w)


def test_lock_is_the_file_s_whatever_its_name(m, processes):
    (a, fa), (b, fb) = pair(m, processes)
    os.rename(m.up("u/file"), m.up("u/renamed"))
    a("lockf", fa, EX | NB)
    refused(EAGAIN, b, "lockf", fb, EX | NB)
    os.unlink(m.up("u/renamed"))
    refused(EAGAIN, b, "lockf", fb, EX | NB)
    a("lockf", fa, UN)
    b("lockf", fb, EX | NB)


def test_unmounted_while_somebody_waits(m, processes):
    """umount -l: the waiter still gets its lock, and maildexfs ends with the last of its users."""
    (a, fa), (b, fb) = pair(m, processes)
    a("lockf", fa, EX)
    b.begin("lockf", fb, EX)
    assert not b.answers(0.1)
    assert os.system(f"umount -l {m.mnt}") == 0
    a("lockf", fa, UN)
    assert b.end() is None
    a.ours.close()
    b.ours.close()
    m._fs_ended()  # pylint: disable=protected-access


@pytest.mark.parametrize("how", ["TERM", "umount -l"])
@pytest.mark.parametrize("call", ["lockf", "flock"])
def test_ends_while_somebody_waits(m, processes, how, call):
    """Files and directories are open and a lock is wanted: it ends without a trace."""
    (a, fa), (b, fb) = pair(m, processes)
    a("open", m.up("u/cur"), os.O_RDONLY)
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

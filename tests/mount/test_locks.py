# SPDX-License-Identifier: GPL-2.0-or-later
"""Law 6: fcntl and flock locks through the mount exclude what they should: other processes, on the mount and on the lower tree, and nobody
else."""

import fcntl
import multiprocessing
import os
import signal
import struct
import time
from errno import EACCES, EAGAIN

import pytest

from host import acting_as, eventually, refused, touch

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def file(mounted):
    touch(mounted.low("u/lockfile"), b"0123456789")
    return mounted


class Holder:
    """Another process that holds a lock until it is told to go, or killed."""

    def __init__(self, path, lock, flags=os.O_RDWR):
        self.mine, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=self._main, args=(path, flags, lock, theirs))
        self.process.start()
        theirs.close()
        self.got = self.mine.recv()

    @staticmethod
    def _main(path, flags, lock, pipe):
        fd = os.open(path, flags)
        try:
            lock(fd)
            pipe.send("held")
        except OSError as e:
            pipe.send(e.errno)
        pipe.recv()

    def release(self):
        self.mine.send("go")
        self.process.join(60)

    def kill(self):
        self.process.kill()
        self.process.join(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.is_alive():
            self.kill()


def posix(kind=fcntl.LOCK_EX, length=0, start=0):
    return lambda fd: fcntl.lockf(fd, kind | fcntl.LOCK_NB, length, start)


def whole(kind=fcntl.LOCK_EX):
    return lambda fd: fcntl.flock(fd, kind | fcntl.LOCK_NB)


@pytest.mark.parametrize("lock", [posix, whole])
@pytest.mark.parametrize("there, here", [("up", "up"), ("low", "up"), ("up", "low")])
def test_processes_exclude_each_other(file, lock, there, here):
    """Also one on the mount and one on the lower tree, as on another host."""
    with Holder(getattr(file, there)("u/lockfile"), lock()) as other:
        fd = os.open(getattr(file, here)("u/lockfile"), os.O_RDWR)
        refused((EAGAIN, EACCES), lock(), fd)
        other.release()
        eventually("the lock to be free", lambda: _had(lock(), fd))  # flock: the kernel's RELEASE comes after close()
        os.close(fd)


@pytest.mark.parametrize("lock", [posix, whole])
def test_readers_share(file, lock):
    with Holder(file.up("u/lockfile"), lock(fcntl.LOCK_SH)):
        fd = os.open(file.up("u/lockfile"), os.O_RDWR)
        lock(fcntl.LOCK_SH)(fd)
        refused((EAGAIN, EACCES), lock(fcntl.LOCK_EX), fd)
        os.close(fd)


def test_a_process_never_blocks_itself(file):
    """One lower descriptor per owner, not per handle."""
    a, b = (os.open(file.up("u/lockfile"), os.O_RDWR) for _ in range(2))
    posix()(a)
    posix()(b)
    fcntl.lockf(b, fcntl.LOCK_EX)  # a waiting one neither
    os.close(b)  # POSIX: closing any descriptor of the file drops its locks
    with Holder(file.up("u/lockfile"), posix()) as other:
        assert other.got == "held"
    os.close(a)


def test_ranges(file):
    with Holder(file.up("u/lockfile"), posix(length=5, start=0)):
        fd = os.open(file.up("u/lockfile"), os.O_RDWR)
        posix(length=5, start=5)(fd)
        refused((EAGAIN, EACCES), posix(length=1, start=4), fd)
        os.close(fd)


def test_getlk_tells_who_is_in_the_way(file):
    with Holder(file.up("u/lockfile"), posix(length=3, start=2)):
        fd = os.open(file.up("u/lockfile"), os.O_RDWR)
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, start, length, _ = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        assert (kind, start, length) == (fcntl.F_WRLCK, 2, 3)
        os.close(fd)


def test_read_only_handles(file):
    with Holder(file.up("u/lockfile"), posix(fcntl.LOCK_SH), os.O_RDONLY) as other:
        assert other.got == "held"
        fd = os.open(file.up("u/lockfile"), os.O_RDWR)
        refused((EAGAIN, EACCES), posix(), fd)
        os.close(fd)


@pytest.mark.parametrize("lock", [posix, whole])
def test_a_killed_holder_frees(file, lock):
    with Holder(file.up("u/lockfile"), lock()) as other:
        other.kill()
        fd = os.open(file.up("u/lockfile"), os.O_RDWR)
        eventually("the lock to be free", lambda: _had(lock(), fd))
        os.close(fd)


def _had(lock, fd):
    try:
        lock(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("wait", [fcntl.lockf, fcntl.flock])
@pytest.mark.parametrize("end", ["release", "kill"])
def test_a_waiting_lock_is_granted(file, wait, end):
    lock = posix if wait is fcntl.lockf else whole
    with Holder(file.up("u/lockfile"), lock()) as other, Waiter(file.up("u/lockfile"), wait) as waiter:
        assert not waiter.has_it(0.2)
        assert os.listdir(file.up("u"))  # nobody else is blocked meanwhile
        getattr(other, end)()
        assert waiter.has_it(60)


@pytest.mark.parametrize("wait", [fcntl.lockf, fcntl.flock])
def test_a_waiting_lock_can_be_interrupted(file, wait):
    lock = posix if wait is fcntl.lockf else whole
    with Holder(file.up("u/lockfile"), lock()), Waiter(file.up("u/lockfile"), wait) as waiter:
        assert not waiter.has_it(0.2)
        os.kill(waiter.process.pid, signal.SIGALRM)
        assert waiter.interrupted(60)


class Waiter:
    """Another process that waits for a lock."""

    def __init__(self, path, wait):
        self.mine, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=self._main, args=(path, wait, theirs))
        self.process.start()
        theirs.close()
        assert self.mine.recv() == "asks"

    @staticmethod
    def _main(path, wait, pipe):
        def on_alarm(*_):
            raise InterruptedError

        signal.signal(signal.SIGALRM, on_alarm)
        fd = os.open(path, os.O_RDWR)
        pipe.send("asks")
        try:
            wait(fd, fcntl.LOCK_EX)
            pipe.send("held")
        except InterruptedError:
            pipe.send("interrupted")

    def has_it(self, seconds):
        return self.mine.poll(seconds) and self.mine.recv() == "held"

    def interrupted(self, seconds):
        return self.mine.poll(seconds) and self.mine.recv() == "interrupted"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.is_alive():
            self.process.kill()
        self.process.join(60)


def test_many_holders_and_waiters_exclude_each_other(file):
    """Eight processes raise one counter under the lock: none is lost."""
    touch(file.low("u/counter"), b"0")

    def work():
        for _ in range(25):
            fd = os.open(file.up("u/lockfile"), os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX)
            with open(file.low("u/counter"), encoding="ascii") as f:
                n = int(f.read())
            time.sleep(0.0005)  # long enough for another one to slip in, if it could
            with open(file.low("u/counter"), "w", encoding="ascii") as f:
                f.write(str(n + 1))
            os.close(fd)

    workers = [CONTEXT.Process(target=work) for _ in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
        assert w.exitcode == 0
    with open(file.low("u/counter"), encoding="ascii") as f:
        assert f.read() == "200"


def test_a_descriptor_that_was_handed_over(file):
    """Who locks may be somebody who could not open the file."""
    os.chmod(file.low("u/lockfile"), 0o600)
    fd = os.open(file.up("u/lockfile"), os.O_RDWR)
    with acting_as(2345):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)

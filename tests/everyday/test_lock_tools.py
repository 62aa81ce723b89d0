# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks as programs use them one after the other: what is closed is free when close() returns, in every kind."""

import fcntl
import os
import struct
import subprocess

import pytest

from daemon import WAIT_S

F_OFD_SETLK, F_OFD_SETLKW = 37, 38


def ofd(fd, command=F_OFD_SETLK):
    fcntl.fcntl(fd, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))


LOCKS = {
    "ofd": ofd,
    "ofd, waiting": lambda fd: ofd(fd, F_OFD_SETLKW),
    "posix": lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
}


@pytest.mark.parametrize("where", ["u/cur", "p"])
@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_closed_is_free(twin, lock, where):
    """Xapian, SQLite and flock(1) lock, close, and lock again."""
    twin.fill()
    for top in (twin.plain, twin.mnt):
        for _ in range(50):
            fd = os.open(os.path.join(top, where, "lock"), os.O_RDWR | os.O_CREAT)
            lock(fd)
            os.close(fd)


@pytest.mark.parametrize("lock", [LOCKS["ofd"], LOCKS["flock"]])
def test_a_duplicate_keeps_it(twin, lock):
    twin.fill()
    for top in (twin.plain, twin.mnt):
        path = os.path.join(top, "p", "lock")
        first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
        lock(first)
        kept = os.dup(first)
        os.close(first)
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                lock(second)
        os.close(kept)
        lock(second)
        os.close(second)


def test_one_descriptor_of_a_process_does_not_free_the_others(twin):
    """Unlike POSIX locks, those of an open file description outlive the close of another descriptor of the file."""
    twin.fill()
    for top in (twin.plain, twin.mnt):
        path = os.path.join(top, "p", "lock")
        first, second, third = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(3))
        ofd(first)
        os.close(third)
        with pytest.raises(BlockingIOError):
            ofd(second)
        os.close(first)
        ofd(second)
        os.close(second)


def test_flock_1(twin):
    """Thirty shells, one after the other, and eight at once that count in a file."""
    twin.fill()
    twin.run("sh", "-c", "for i in $(seq 30); do flock -n p/lock true || exit 7; done")
    script = "for i in $(seq 5); do flock p/lock sh -c 'n=$(cat p/count); echo $((n + 1)) >p/count'; done"
    for top in (twin.plain, twin.mnt):
        with open(os.path.join(top, "p", "count"), "x", encoding="ascii") as f:
            f.write("0\n")
        shells = [subprocess.Popen(["sh", "-c", script], cwd=top) for _ in range(8)]
        assert [s.wait(WAIT_S) for s in shells] == [0] * 8
        with open(os.path.join(top, "p", "count"), encoding="ascii") as f:
            assert f.read() == "40\n"


def test_sqlite(twin):
    """A database in the tree, rollback journal and WAL (which maps shared memory), by four writers at once."""
    twin.fill()
    for mode in ("delete", "wal", "truncate"):
        twin.run("sqlite3", "p/db", f"PRAGMA journal_mode={mode}; CREATE TABLE IF NOT EXISTS t (i INTEGER);")
        for top in (twin.plain, twin.mnt):
            inserts = ".timeout 60000\n" + "INSERT INTO t VALUES (1);\n" * 8
            argv = ["sqlite3", "p/db"]
            shells = [subprocess.Popen(argv, cwd=top, stdin=subprocess.PIPE, text=True) for _ in range(4)]
            for s in shells:
                s.stdin.write(inserts)
                s.stdin.close()
            assert [s.wait(WAIT_S) for s in shells] == [0] * 4
        twin.run("sqlite3", "p/db", "SELECT count(*) FROM t; PRAGMA integrity_check;")

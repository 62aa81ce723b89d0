# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that one process appends to: the size that others are told is one up to which they can map and read it."""

import mmap
import multiprocessing
import os

import pytest

CONTEXT = multiprocessing.get_context("fork")
APPENDS, STEP = 8000, 1024


def append(path):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for _ in range(APPENDS):
        os.write(fd, b"x" * STEP)
    os.close(fd)


def read_to_the_end(path, how):
    """At each size that it is told. A byte of a mapping that is not there ends the process with SIGBUS."""
    fd, size, looks = os.open(path, os.O_RDONLY), 0, 0
    while size < APPENDS * STEP:
        now = os.fstat(fd).st_size
        assert now >= size
        if now == size:
            continue
        size, looks = now, looks + 1
        if how == "map":
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as m:
                assert m[size - 1] == ord("x")
        else:
            assert os.pread(fd, 2, size - 1)[:1] == b"x"
    assert looks > 10


@pytest.mark.parametrize("how", ["map", "read"])
def test_a_size_that_is_told_is_there(mounted, how):
    path = mounted.up("u/log")
    with open(path, "wb"):
        pass
    jobs = [CONTEXT.Process(target=read_to_the_end, args=(path, how)) for _ in range(3)]
    jobs.append(CONTEXT.Process(target=append, args=(path,)))
    for j in jobs:
        j.start()
    for j in jobs:
        j.join(60)
    codes = [j.exitcode for j in jobs]
    for j in jobs:
        if j.is_alive():
            j.kill()
            j.join()
    assert codes == [0] * len(jobs)


def test_the_writer_itself_and_who_comes_when_it_is_done(mounted):
    path = mounted.up("u/log")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for n in range(1, 200):
        os.write(fd, b"x" * 100)
        assert os.fstat(fd).st_size == os.stat(path).st_size == 100 * n
    child = CONTEXT.Process(target=lambda: os._exit(os.stat(path).st_size != 100 * 199))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    os.ftruncate(fd, 50)
    assert os.stat(path).st_size == 50
    os.pwrite(fd, b"y" * 100, 30)
    assert os.stat(path).st_size == os.stat(mounted.low("u/log")).st_size == 130
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert os.stat(path).st_size == 0
    os.close(fd)


def test_grown_below_meanwhile(mounted):
    """As another host does it."""
    path = mounted.up("u/log")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for n in range(1, 50):
        os.pwrite(fd, b"x" * 10, 20 * (n - 1))
        with open(mounted.low("u/log"), "ab") as f:
            f.write(b"y" * 10)
        assert os.stat(path).st_size == 20 * n
    os.close(fd)

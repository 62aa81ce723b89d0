# SPDX-License-Identifier: GPL-2.0-or-later
"""A big attachment read through the mount: as fast as on plain NFS, with the same calls to the server. Prints what it
measured: speeds as ratios of one run (mount : plain), medians of interleaved rounds; calls of one open, read, close."""

import os
import statistics
import subprocess
import time

import pytest

import calls
from host import ls
from lab import OWNER, as_owner

SIZE, PIECE = 64 << 20, 128 << 10
ROUNDS = {"warm": 21, "cold": 9}
BAR = 0.9  # of plain NFS's speed: what the project promises


def kind_of(path):
    return subprocess.run(["df", "--output=fstype", path], check=True, capture_output=True, text=True).stdout.split()[-1]


def mountpoint(path):
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def read_it(path):
    """Seconds of open, read to the end, close, as a mail server does it."""
    buf, left = bytearray(PIECE), SIZE
    start = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    while n := os.readv(fd, [buf]):
        left -= n
    os.close(fd)
    took = time.perf_counter() - start
    assert left == 0
    return took


def forget(*paths):
    """The client's pages of a file, and the mount's."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@pytest.fixture(name="m", params=["straight", "through-us"])
def mounted_on_nfs(maildex, request):
    if not kind_of(maildex.root).startswith("nfs"):
        pytest.skip("the lower tree is not on NFS: run it by tests/nfs/vm suite,4.2,tests/nfs/test_straight.py")
    maildex.fs_start(**({} if request.param == "straight" else {"passthrough": "0"}))
    maildex.straight = request.param == "straight"
    state = maildex.fs_status()["maildexfs.passthrough"]
    if maildex.straight and state != "on":
        pytest.skip(f"passthrough is {state}")
    maildex.msg = "u/cur/1600000000.M1P1.host:2,S"
    block = os.urandom(1 << 20)
    maildex.maildir("u", uid=OWNER)
    with open(os.path.join(maildex.made, maildex.msg), "xb") as f:
        os.fchown(f.fileno(), OWNER, OWNER)
        for _ in range(SIZE >> 20):
            f.write(block)
    with as_owner():
        ls(maildex.up("u/cur"))
    return maildex


def at_most(ratios):
    """What the median is at most, by these samples, with 97.5 % certainty."""
    n = len(ratios)
    return sorted(ratios)[n - 1 - max(0, int(n / 2 - 0.98 * n**0.5))]


@pytest.mark.parametrize("cache", ["warm", "cold"])
@as_owner()
def test_speed(m, cache, figures):
    """Emulated machines are noisy: only what is certainly too slow fails."""
    up, low = m.up(m.msg), m.low(m.msg)
    took = {up: [], low: []}
    for path in took:
        read_it(path)
    for n in range(ROUNDS[cache]):
        for path in (up, low) if n % 2 else (low, up):
            if cache == "cold":
                forget(up, low)
            took[path].append(read_it(path))
    ratios = [b / a for a, b in zip(took[up], took[low])]
    speed = {p: SIZE / 1e6 / statistics.median(t) for p, t in took.items()}
    figures(
        {
            "mount MB/s": f"{speed[up]:.0f}",
            "plain MB/s": f"{speed[low]:.0f}",
            "mount : plain": f"{statistics.median(ratios):.2f} (at most {at_most(ratios):.2f})",
        }
    )
    if m.straight:
        assert m.count("passthrough.opens") >= ROUNDS[cache]
        assert at_most(ratios) >= BAR


@as_owner()
def test_calls(m, figures):
    """The kernel opens the lower file once more; without a delegation that is a call on NFSv4, and none on NFSv3."""
    found, point = [], mountpoint(m.root)
    for path in (m.low(m.msg), m.up(m.msg)):
        read_it(path)  # what each path knows of the name
        forget(path, m.low(m.msg))
        before = calls.read(point)
        read_it(path)
        found.append({kind: op.count for kind, op in calls.diff(before, calls.read(point)).items()})
    reads = [sum(v for k, v in f.items() if k.startswith("READ")) for f in found]  # READ_PLUS too
    others = [sum(f.values()) - r for f, r in zip(found, reads)]
    figures(dict(zip(("plain", "mount"), found)))
    assert reads[0] > 0
    if m.straight:
        assert reads[1] <= reads[0] * 1.02
        assert others[1] <= others[0] + 3

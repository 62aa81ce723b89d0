# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's NFS server (see init) out of order; each block ends with all as it was before."""

import contextlib
import subprocess
import time

from lab import EXPORT, OWNER

CLIENTS = "10.9.0.0/24"


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def restart():
    """As after a crash: clients have to claim what they had open."""
    run("rpc.nfsd", "0")
    run("rpc.nfsd", "8")


@contextlib.contextmanager
def unplugged(host):
    """That host reaches it no more; calls wait, as the mount is `hard`."""
    run("ip", "link", "set", f"v{host}", "down")
    try:
        yield
    finally:
        run("ip", "link", "set", f"v{host}", "up")


def _options():
    with open("/etc/exports", encoding="ascii") as f:
        return f.read().split("(")[1].split(")")[0]


@contextlib.contextmanager
def exported(**changes):
    """With other options: exported(rw="ro")."""
    options = _options().split(",")
    run("exportfs", "-i", "-o", ",".join(changes.get(o.split("=")[0], o) for o in options), f"{CLIENTS}:{EXPORT}")
    try:
        yield
    finally:
        run("exportfs", "-ra")


@contextlib.contextmanager
def quota(blocks=0, files=0):
    """The mail's owner may have so many 1 KB blocks and files more than it has."""
    text = subprocess.run(["quota", "-u", "-w", "-p", str(OWNER)], check=False, capture_output=True, text=True).stdout
    used = [line.split() for line in text.splitlines() if line.strip().startswith("/dev/")]
    has = (int(used[0][1].rstrip("*")), int(used[0][5].rstrip("*"))) if used else (0, 0)
    limits = [str(h + more if more else 0) for h, more in zip(has, (blocks, files))]
    run("setquota", "-u", str(OWNER), limits[0], limits[0], limits[1], limits[1], EXPORT)
    try:
        yield
    finally:
        run("setquota", "-u", str(OWNER), "0", "0", "0", "0", EXPORT)


@contextlib.contextmanager
def clock_back(seconds):
    """The clock of the whole lab, which is the server's too."""
    before = time.clock_gettime(time.CLOCK_MONOTONIC), time.time()
    time.clock_settime(time.CLOCK_REALTIME, before[1] - seconds)
    try:
        yield
    finally:
        passed = time.clock_gettime(time.CLOCK_MONOTONIC) - before[0]
        time.clock_settime(time.CLOCK_REALTIME, before[1] + passed)

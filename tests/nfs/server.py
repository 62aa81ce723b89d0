# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's NFS server (see init) in its operator's hands, and what happens to such: it restarts, cannot be reached,
is exported read-only, has another disk, its clock is set. Each is undone at the end of its block."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time

from nfsmount import EXPORT

CLIENTS = "10.9.0.0/24"
THREADS = "8"


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"


@contextlib.contextmanager
def stopped():
    run("rpc.nfsd", "0")
    try:
        yield
    finally:
        run("rpc.nfsd", THREADS)


def restart():
    with stopped():
        pass


@contextlib.contextmanager
def _done(do, undo):
    """By one process, started before: a new one begins by closing files of ours, and that may wait for the server."""
    script = f"{do}; echo done; read _ || {undo}"
    with subprocess.Popen(["sh", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"done\n", do
        try:
            yield
        finally:
            process.stdin.close()
            assert process.wait() == 0, undo


def cut_off(host):
    """Nothing goes to the host, nothing comes from it."""
    return _done(f"ip link set v{host} down", f"ip link set v{host} up")


def replies_lost(host):
    """The server does what the host asks for, and the host doesn't hear of it."""
    return _done(f"tc qdisc add dev v{host} root netem loss 100%", f"tc qdisc del dev v{host} root")


@contextlib.contextmanager
def far_away(host, ms):
    """Each call of the host takes so long."""
    device = ("nsenter", f"--net=/run/netns/{host}", "tc", "qdisc")
    run(*device, "replace", "dev", "eth0", "root", "netem", "delay", f"{ms}ms")
    try:
        yield
    finally:
        run(*device, "del", "dev", "eth0", "root")


def _options():
    with open("/etc/exports", encoding="ascii") as f:
        return re.search(r"\((.*)\)", f.read())[1]


def _export(path, options):
    run("exportfs", "-o", options, f"{CLIENTS}:{path}")
    run("exportfs", "-f")


@contextlib.contextmanager
def read_only():
    _export(EXPORT, "ro," + _options().replace("rw,", ""))
    try:
        yield
    finally:
        _export(EXPORT, _options())


@contextlib.contextmanager
def clock_back(seconds):
    """The whole machine's; only CLOCK_REALTIME."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() - seconds)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


class Disk:
    """A filesystem of its own, exported below EXPORT; with Disk() as disk: Tree(disk.name)."""

    def __init__(self, *made_with, size="64M", options=(), fsid=11):
        self.dir = tempfile.mkdtemp(prefix="disk-")
        self.image = os.path.join(self.dir, "image")
        self.options, self.fsid = ",".join(("loop", *options)), fsid
        self.path = tempfile.mkdtemp(prefix="disk-", dir=EXPORT)
        self.name = os.path.basename(self.path)
        run("mke2fs", "-q", "-t", "ext4", "-m", "0", *made_with, self.image, size)

    def __enter__(self):
        run("modprobe", "loop")
        self._attach()
        return self

    def __exit__(self, *_):
        with stopped():
            self._detach()
        with open("/proc/fs/nfsd/v4_end_grace", "w", encoding="ascii") as f:
            f.write("Y")  # nobody has anything to reclaim
        os.rmdir(self.path)
        shutil.rmtree(self.dir)

    def _attach(self):
        run("mount", "-o", self.options, self.image, self.path)
        os.chmod(self.path, 0o755)
        _export(self.path, _options().replace("fsid=0", f"fsid={self.fsid}"))

    def _detach(self):
        """With the server stopped: it keeps files open."""
        run("exportfs", "-u", f"{CLIENTS}:{self.path}")
        run("exportfs", "-f")
        run("umount", self.path)

    def copy(self):
        """A replica, as of now."""
        run("fsfreeze", "-f", self.path)
        try:
            shutil.copyfile(self.image, self.image + ".copy")
        finally:
            run("fsfreeze", "-u", self.path)

    def fail_over(self, fsid):
        """The replica takes over."""
        with stopped():
            self._detach()
            self.image += ".copy"
            self.fsid = fsid
            self._attach()

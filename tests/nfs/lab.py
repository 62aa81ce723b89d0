# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of the lab (see init): each mounts the server's export as a client of its own, and may run maildex on it."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from host import Maildex  # noqa: E402

EXPORT = "/export"  # the server's own look at the tree
VERSION = os.environ.get("MAILDEX_NFS_VERSION", "4.2")
OWNER = 5000
AT_EMPTY_PATH, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = 0x1000, 0x2000, 0x7FF
libc = ctypes.CDLL(None, use_errno=True)


def mount(host, point, options=""):
    """The export at a path, as that host's kernel client sees it."""
    source, more = ("10.9.0.1:" + EXPORT, ",nolock") if VERSION == "3" else ("10.9.0.1:/", "")
    os.makedirs(point, exist_ok=True)
    options = f"vers={VERSION},proto=tcp,hard,nosharecache{more}{options and ',' + options}"
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{host}", "mount", "-t", "nfs", "-o", options, source, point], check=True
    )


@contextlib.contextmanager
def mounted(host, options=""):
    point = tempfile.mkdtemp(prefix=f"nfs-{host}-")
    try:
        mount(host, point, options)
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=False)
        os.rmdir(point)


def force(fd):
    """A statx(2) that the client must ask the server for."""
    buf = ctypes.create_string_buffer(256)
    flags = AT_EMPTY_PATH | AT_STATX_FORCE_SYNC
    if libc.statx(fd, b"", flags, STATX_BASIC_STATS, buf) < 0:
        raise OSError(ctypes.get_errno(), "statx")


class Tree:
    """A mail tree made on the server; with Tree() as tree: tree.maildir("u")."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="tree-", dir=EXPORT)
        self.name = os.path.basename(self.path)
        os.chmod(EXPORT, 0o755)
        os.chmod(self.path, 0o755)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def on(self, *parts):
        return os.path.join(self.path, *parts)

    def maildir(self, user, new=0, cur=0):
        for half in ("", "new", "cur", "tmp"):
            os.makedirs(self.on(user, "Maildir", half))
        for i in range(new + cur):
            name = f"{1700000000 + i}.M{i}P1.in"
            self.message(user, "new" if i < new else "cur", name if i < new else name + ":2,S")
        for path, _, names in os.walk(self.on(user)):
            for entry in (path, *(os.path.join(path, n) for n in names)):
                os.chown(entry, OWNER, OWNER)

    def message(self, user, half, name):
        with open(self.on(user, "Maildir", half, name), "xb") as f:
            f.write(b"Subject: x\n\nbody\n")
        os.chown(self.on(user, "Maildir", half, name), OWNER, OWNER)

    def real(self, user, half):
        """What is there, as the server has it."""
        return sorted(n for n in os.listdir(self.on(user, "Maildir", half)) if not n.startswith(".nfs"))


class Host(Maildex):
    """maildexd and maildexfs of a host; with Host("mf1", tree) as host: host.listed("u", "cur")."""

    def __init__(self, name, tree, options="", **conf):
        self.nfs = tempfile.mkdtemp(prefix=f"nfs-{name}-")
        mount(name, self.nfs, options)
        self.tree = tree
        super().__init__(host=name, **conf)

    def _root(self):
        return os.path.join(self.nfs, self.tree.name), self.tree.path

    def __enter__(self):
        super().__enter__()
        self.start()
        self.fs_start()
        return self

    def __exit__(self, *args):
        self.made = tempfile.mkdtemp()  # the tree is somebody else's to remove
        try:
            super().__exit__(*args)
        finally:
            subprocess.run(["umount", "-l", self.nfs], check=False)
            os.rmdir(self.nfs)

    def on(self, *parts):
        return os.path.join(self.mnt, *parts)

    def listed(self, user, half):
        return sorted(os.listdir(self.on(user, "Maildir", half)))

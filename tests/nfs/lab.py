# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of the lab (see init): each mounts the server's export as a client of its own, and may run maildex on it."""

import contextlib
import ctypes
import functools
import os
import shutil
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import nfsmount  # noqa: E402
from daemon import make_maildir  # noqa: E402
from host import Maildex, acting_as  # noqa: E402
from nfsmount import EXPORT  # noqa: E402

VERSION = os.environ.get("MAILDEX_NFS_VERSION", "4.2")
OWNER = 5000
AT_EMPTY_PATH, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = 0x1000, 0x2000, 0x7FF
libc = ctypes.CDLL(None, use_errno=True)
# Under root_squash nobody else may. Servers and trees are made by root outside of it.
as_owner = functools.partial(acting_as, OWNER)


@contextlib.contextmanager
def mounted(host, path="/", options=()):
    """The export, as that host's kernel client sees it."""
    point = tempfile.mkdtemp(prefix=f"nfs-{host}-")
    nfsmount.mount(host, VERSION, path, point, *options)
    try:
        yield point
    finally:
        nfsmount.unmount(point)
        os.rmdir(point)


def force(fd):
    """A statx(2) that the client must ask the server for."""
    buf = ctypes.create_string_buffer(256)
    flags = AT_EMPTY_PATH | AT_STATX_FORCE_SYNC
    if libc.statx(fd, b"", flags, STATX_BASIC_STATS, buf) < 0:
        raise OSError(ctypes.get_errno(), "statx")


class Tree:
    """A mail tree made on the server, also on a disk of its own there; with Tree() as tree: tree.maildir("u")."""

    def __init__(self, disk=""):
        self.disk = disk

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="tree-", dir=os.path.join(EXPORT, self.disk))
        self.name = os.path.basename(self.path)
        os.chmod(EXPORT, 0o755)
        os.chmod(self.path, 0o755)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path)

    def on(self, *parts):
        return os.path.join(self.path, *parts)

    def maildir(self, user, new=0, cur=0):
        make_maildir(self.on(user, "Maildir"), new, cur, OWNER)

    def real(self, user, half):
        """What is there, as the server has it."""
        return sorted(n for n in os.listdir(self.on(user, "Maildir", half)) if not n.startswith(".nfs"))


class Host(Maildex):
    """maildexd and maildexfs of a host; with Host("mf1", tree) as host: host.listed("u", "cur")."""

    def __init__(self, name, tree, options=(), **conf):
        self.tree, self.stack = tree, contextlib.ExitStack()
        self.options = options
        self.nfs = self.stack.enter_context(mounted(name, "/" + tree.disk, options))
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
        with self.stack:
            super().__exit__(*args)

    def remount(self):
        """What an administrator does about stale handles."""
        self.fs_stop()
        self.stop()
        nfsmount.unmount(self.nfs)
        nfsmount.mount(self.conf["host"], VERSION, "/" + self.tree.disk, self.nfs, *self.options)
        self.start()
        self.fs_start()

    def listed(self, user, half):
        return sorted(os.listdir(self.up(user, "Maildir", half)))

# SPDX-License-Identifier: GPL-2.0-or-later
"""A maildexfs whose root may not do more with others' files than anybody, as on NFS with root_squash: here it lacks the
capabilities for it. What the mail's owner may do goes through the mount all the same."""

import fcntl
import os
import struct
from errno import EACCES, EAGAIN

import pytest

from host import Maildex, acting_as, refused

OWNER = 2345
WITHOUT = "-dac_override,-dac_read_search,-fowner"
F_OFD_SETLK = 37
UNLOCKED = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Squashed(Maildex):
    def fs_command(self, *args, **options):
        return ["setpriv", f"--bounding-set={WITHOUT}", *super().fs_command(*args, **options)]


@pytest.fixture(name="squashed")
def a_squashed_mount():
    with Squashed() as m:
        m.maildir("u", cur=1, uid=OWNER)
        path = m.low("u/lockfile")
        with open(path, "xb"):
            os.chown(path, OWNER, OWNER)
            os.chmod(path, 0o600)
        yield m.fs_start()


def test_root_is_squashed(squashed):
    """Else the others show nothing."""
    refused(EACCES, os.listdir, squashed.up("u/cur"))


@pytest.mark.parametrize("how", ["fcntl", "ofd", "flock"])
def test_locks_of_the_owner(squashed, how):
    """The lower file is opened anew for fcntl's."""
    with acting_as(OWNER):
        one, two = (os.open(squashed.up("u/lockfile"), os.O_RDWR) for _ in range(2))
        if how == "fcntl":
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.fcntl(one, fcntl.F_GETLK, UNLOCKED)
        elif how == "ofd":
            fcntl.fcntl(one, F_OFD_SETLK, UNLOCKED)
            refused(EAGAIN, fcntl.fcntl, two, F_OFD_SETLK, UNLOCKED)
        else:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused(EAGAIN, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(one)
        os.close(two)

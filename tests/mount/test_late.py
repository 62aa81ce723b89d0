# SPDX-License-Identifier: GPL-2.0-or-later
"""A lower tree that takes itself for a network filesystem (a mirror, mounted as sshfs): what is known of messages is
answered without it, and whoever has a message open goes on reading whatever happens to its name."""

import contextlib
import fcntl
import os
import subprocess
import time
from errno import EACCES, ENOENT, EPERM, ESTALE

import pytest

from daemon import until
from host import SERVE_LOWER, Maildex, acting_as, as_user, ls, refused

OWNER = 2345
NAME = "u/cur/1600000000.M1P1.host:2,S"
OTHER = "u/cur/1600000001.M1P1.host:2,S"
BYTES = b"Subject: x\n\nx\n"
NOTHING_KEPT = "attr_timeout=0,entry_timeout=0,negative_timeout=0,subtype=sshfs"


class Remote(Maildex):
    def _root(self):
        made, mirror = (os.path.join(self.dir, name) for name in ("made", "mail"))
        for path in (made, mirror):
            os.mkdir(path, 0o755)
        subprocess.run(["bindfs", "-o", NOTHING_KEPT, made, mirror], check=True)
        return mirror, made

    def there(self, *parts):
        """As other hosts see and change it."""
        return os.path.join(self.made, *parts)


@pytest.fixture(name="m")
def mounted_over_a_mirror():
    with Remote(revalidate="300ms", index="/nonexistent/index") as m:
        m.maildir("u", new=1, cur=3, uid=OWNER)
        yield m.fs_start()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def seen(m, name=NAME):
    """The owner has read it, so that the kernel has it; then opens it again."""
    with acting_as(OWNER):
        ls(m.up("u/cur"))
        assert read(m.up(name)) == BYTES
        before = m.count("opens.late")
        f = open(m.up(name), "rb", buffering=0)  # pylint: disable=consider-using-with
    assert m.count("opens.late") == before + 1
    return contextlib.closing(f)


def test_a_first_look_opens_below(m):
    """One call to the server for the lookup and the open."""
    with acting_as(OWNER):
        assert read(m.up(NAME)) == BYTES
    assert m.count("opens.early") == 1
    with acting_as(OWNER):
        with open(m.up(OTHER), "r+b"):
            pass
        os.stat(m.up(NAME.replace("0.M1", "2.M1")))
        os.unlink(m.up(NAME))
        refused(ENOENT, read, m.up(NAME))
    refused(EACCES, as_user, OWNER + 1, lambda: read(m.up(OTHER)))
    assert m.count("opens.early") == 1


def pages_go(f):
    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_what_was_read_is_read_again_without_the_lower_file(m):
    with seen(m) as f:
        assert f.read() == BYTES
        assert os.fstat(f.fileno()).st_size == len(BYTES)
    assert m.count("opens.late.lower") == 0


def test_pages_that_went(m):
    with seen(m) as f:
        pages_go(f)
        assert f.read() == BYTES
    assert m.count("opens.late.lower") == 1


def renamed(m, where):
    os.rename(where(NAME), where(NAME + "T"))


def moved(m, where):
    os.rename(where(NAME), where(NAME.replace("cur", "new")))


def removed(m, where):
    os.unlink(where(NAME))


def replaced(m, where):
    with open(where("u/tmp/other"), "xb") as f:
        f.write(b"other")
    os.rename(where("u/tmp/other"), where(NAME))


@pytest.mark.parametrize("change", [renamed, moved, removed, replaced])
def test_who_has_it_open_reads_on_after_a_change_through_the_mount(m, change):
    with seen(m) as f:
        with acting_as(OWNER):
            change(m, m.up)
        pages_go(f)
        assert f.read() == BYTES
        assert os.fstat(f.fileno()).st_size == len(BYTES)


@pytest.mark.parametrize("change", [renamed, moved])
def test_who_has_it_open_reads_on_after_another_host_renamed_it(m, change):
    with seen(m) as f:
        with acting_as(OWNER):
            ls(m.up("u/new"))  # as mail servers do
            change(m, m.there)
        pages_go(f)
        assert f.read() == BYTES


@pytest.mark.parametrize("change", [removed, replaced])
def test_after_another_host_removed_it(m, change):
    """What the kernel has is read, the rest cannot be: as on NFS 3."""
    with seen(m) as f:
        with acting_as(OWNER):
            change(m, m.there)
        assert f.read() == BYTES
        pages_go(f)
        f.seek(0)
        refused(ESTALE, f.read)
    with acting_as(OWNER):
        until("the new state", lambda: os.path.basename(NAME).encode() not in ls(m.up("u/cur")) or read(m.up(NAME)) == b"other")


def test_calls_that_need_the_lower_file(m):
    with seen(m) as f:
        fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.fsync(f.fileno())
        assert os.lseek(f.fileno(), 0, os.SEEK_DATA) == 0
    with seen(m) as f, open(m.low("copy"), "wb") as to:
        assert os.copy_file_range(f.fileno(), to.fileno(), len(BYTES)) == len(BYTES)
    with seen(m) as f:
        fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with seen(m) as f:
        os.fchmod(f.fileno(), 0o640)
    assert os.stat(m.there(NAME)).st_mode & 0o777 == 0o640


def test_others_are_answered_by_the_lower_tree(m):
    with seen(m):
        before = m.count("opens.late")
        assert read(m.up(NAME)) == BYTES  # root
        refused(EACCES, as_user, OWNER + 1, lambda: read(m.up(NAME)))
        assert m.count("opens.late") == before


def test_who_writes_is_not_late(m):
    with acting_as(OWNER):
        ls(m.up("u/cur"))
        assert read(m.up(NAME)) == BYTES
        with open(m.up(NAME), "r+b") as f:
            f.write(b"Changed")
        assert read(m.up(NAME)) == b"Changed" + BYTES[7:]
    assert m.count("opens.late") == 0


def test_serve_lower_knows_nothing(m):
    with seen(m):
        m.serve(SERVE_LOWER)
        before = m.count("opens.late"), m.count("lookups.recalled")
        with acting_as(OWNER):
            assert read(m.up(NAME)) == BYTES
        assert (m.count("opens.late"), m.count("lookups.recalled")) == before


def looked_up_again(m, name=NAME):
    """Until an answer came from what is known; returns the last one."""
    before = m.count("lookups.recalled")
    told = []

    def look():
        ls(m.up("u/cur"))
        told[:] = [os.stat(m.up(name))]
        return m.count("lookups.recalled") > before

    with acting_as(OWNER):
        until("a lookup that is answered from what is known", look)
    return told[0]


def test_a_listed_name_is_known(m):
    told, there = looked_up_again(m), os.stat(m.there(NAME))
    for what in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns"):
        assert getattr(told, what) == getattr(there, what), what


def test_attributes_that_were_set_are_shown(m):
    looked_up_again(m)
    with acting_as(OWNER):
        os.chmod(m.up(NAME), 0o640)
    assert looked_up_again(m).st_mode & 0o777 == 0o640
    with acting_as(OWNER):
        os.utime(m.up(NAME), ns=(5, 7))
    assert looked_up_again(m).st_mtime_ns == 7


def test_links_are_counted(m):
    looked_up_again(m)
    with acting_as(OWNER):
        os.link(m.up(NAME), m.up("u/tmp/twin"))
        assert os.stat(m.up(NAME)).st_nlink == 2
    assert looked_up_again(m).st_nlink == 2
    with acting_as(OWNER):
        os.unlink(m.up("u/tmp/twin"))
    assert looked_up_again(m).st_nlink == 1


def test_another_host_removed_one_of_its_names(m):
    """The one that was seen last; the other is open to whoever has it from the listing."""
    looked_up_again(m)
    with acting_as(OWNER):
        os.link(m.up(NAME), m.up(NAME + "T"))
    looked_up_again(m, NAME + "T")
    with acting_as(OWNER):
        os.unlink(m.there(NAME + "T"))
        ls(m.up("u/cur"))
        assert read(m.up(NAME)) == BYTES


def test_a_name_that_another_host_took_away_is_gone_with_the_next_listing(m):
    looked_up_again(m)
    os.rename(m.there(NAME), m.there(NAME + "T"))
    with acting_as(OWNER):
        assert os.path.basename(NAME + "T").encode() in ls(m.up("u/cur"))
        refused_soon(m)


def refused_soon(m):
    """The kernel keeps a name for `revalidate`."""

    def gone():
        try:
            os.stat(m.up(NAME))
        except OSError as e:
            return e.errno == ENOENT
        return False

    until("the old name to be gone", gone)


def test_what_changed_through_the_mount_is_known(m):
    looked_up_again(m, OTHER)
    with acting_as(OWNER):
        os.rename(m.up(OTHER), m.up(OTHER + "T"))
        refused(ENOENT, os.stat, m.up(OTHER))
        assert os.stat(m.up(OTHER + "T")).st_ino == os.stat(m.there(OTHER + "T")).st_ino
    assert looked_up_again(m, OTHER + "T").st_size == len(BYTES)


def settled_and_expired(m):
    """A listing that stands, and nothing that was read of the half is shared any more."""

    def served():
        with m.counting("opendirs_without_listing") as grown:
            ls(m.up("u/cur"))
        return grown["opendirs_without_listing"]

    with acting_as(OWNER):
        ls(m.up("u/cur"))
        time.sleep(0.35)  # `revalidate`, and what was just listed settles: the subject here
        until("a listing from memory", served)
    time.sleep(0.35)


@pytest.mark.parametrize("how", ["opendir", "stat", "stat of an O_PATH descriptor"])
def test_one_look_asks_once(m, how):
    """An open of a half asks when it is opened, not when its name is looked up as well."""
    settled_and_expired(m)
    with acting_as(OWNER), m.counting("lower.getattrs") as grown:
        if how == "opendir":
            ls(m.up("u/cur"))
        elif how == "stat":
            os.stat(m.up("u/cur"))
        else:
            fd = os.open(m.up("u/cur"), os.O_PATH | os.O_DIRECTORY)
            os.fstat(fd)
            os.close(fd)
    assert grown == {"lower.getattrs": 1}


def test_a_stat_after_an_opendir_asks(m):
    """What an open was told of the half's times is told to nobody else."""
    settled_and_expired(m)
    with acting_as(OWNER):
        before = os.stat(m.up("u/cur")).st_mtime_ns
    settled_and_expired(m)
    os.rename(m.there(OTHER), m.there(OTHER + "T"))
    with acting_as(OWNER):
        fd = os.open(m.up("u/cur"), os.O_RDONLY | os.O_DIRECTORY)
        assert os.stat(m.up("u/cur")).st_mtime_ns != before
        assert os.path.basename(OTHER) + "T" in os.listdir(fd)
        os.close(fd)


@pytest.mark.parametrize("mode, called", [(0o700, False), (0o750, True)])
def test_a_mode_that_a_directory_has_is_not_set(m, mode, called):
    os.mkdir(m.there("u/courierimapkeywords"), 0o700)
    os.chown(m.there("u/courierimapkeywords"), OWNER, OWNER)
    before = os.stat(m.there("u/courierimapkeywords")).st_ctime_ns
    with acting_as(OWNER):
        os.chmod(m.up("u/courierimapkeywords"), mode)
        assert os.stat(m.up("u/courierimapkeywords")).st_mode & 0o777 == mode
    after = os.stat(m.there("u/courierimapkeywords"))
    assert after.st_mode & 0o777 == mode
    assert (after.st_ctime_ns != before) == called


def test_a_mode_that_another_host_set_is_seen_by_chmod(m):
    os.mkdir(m.there("u/courierimapkeywords"), 0o700)
    os.chown(m.there("u/courierimapkeywords"), OWNER, OWNER)
    with acting_as(OWNER):
        assert os.stat(m.up("u/courierimapkeywords")).st_mode & 0o777 == 0o700
        os.chmod(m.there("u/courierimapkeywords"), 0o500)
        os.chmod(m.up("u/courierimapkeywords"), 0o700)
    assert os.stat(m.there("u/courierimapkeywords")).st_mode & 0o777 == 0o700
    refused(EPERM, as_user, OWNER + 1, lambda: os.chmod(m.up("u"), 0o700))

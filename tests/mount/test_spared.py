# SPDX-License-Identifier: GPL-2.0-or-later
"""Over a network filesystem: lookups that don't ask the server, since the call that they are part of does (fs/caller.h)."""

import os
from errno import EACCES, ENOENT

import pytest

from daemon import until
from faultfs import Faulty
from host import acting_as, ls, refused, touch

OWNER = 2345


@pytest.fixture(name="m")
def mounted_over_a_mirror():
    with Faulty(revalidate="1ms") as m:
        m.maildir("u", new=1, cur=3, uid=OWNER)
        m.fs_start()
        with acting_as(OWNER):
            ls(m.up("u/cur"))
            ls(m.up("u/tmp"))
            yield m


def asked(m, path, what, *args):
    """How often the lower tree was asked for its attributes."""
    m.faults.counts_reset()
    what(*args)
    return m.faults.counts().get(f"getattr {path}", 0)


def test_a_file_that_goes(m):
    for n in range(2):
        touch(m.up(f"u/tmp/{n}"), b"x")
    assert asked(m, "u/tmp/0", os.unlink, m.up("u/tmp/0")) < asked(m, "u/tmp/1", os.stat, m.up("u/tmp/1"))
    assert ls(m.there("u/tmp")) == {b"1"}


def test_what_a_link_changes_is_seen(m):
    touch(m.up("u/tmp/1"), b"x")
    with open(m.up("u/tmp/1"), "rb") as f:
        os.link(m.up("u/tmp/1"), m.up("u/tmp/lock"))
        assert os.fstat(f.fileno()).st_nlink == 2
    for name in ("1", "lock"):
        assert os.stat(m.up("u/tmp", name)).st_nlink == 2
    os.unlink(m.up("u/tmp/1"))
    assert os.stat(m.up("u/tmp/lock")).st_nlink == 1
    os.rename(m.up("u/tmp/lock"), m.up("u/tmp/2"))
    assert os.stat(m.up("u/tmp/2")).st_size == 1


def test_another_file_of_that_name(m):
    """What others put in its place is what is renamed, and read."""
    touch(m.up("u/tmp/1"), b"ours")
    touch(m.there("u/tmp/other"), b"their")
    os.rename(m.there("u/tmp/other"), m.there("u/tmp/1"))
    os.rename(m.up("u/tmp/1"), m.up("u/cur/17.M1P1.host:2,"))
    for path in (m.up("u/cur"), m.there("u/cur")):
        with os.scandir(path) as found:
            (inode,) = {e.inode() for e in found if e.name.startswith("17.")}
        assert inode == os.stat(m.there("u/cur/17.M1P1.host:2,")).st_ino
    with open(m.up("u/cur/17.M1P1.host:2,"), "rb") as f:
        assert f.read() == b"their"


@pytest.mark.parametrize("path", ["u/cur", "u/new", "u/tmp"])
def test_directories_that_are_listed(m, path):
    os.chmod(m.there(path), 0)
    refused(EACCES, ls, m.up(path))
    os.chmod(m.there(path), 0o700)
    before = ls(m.up(path))
    os.rename(m.there(path), m.there("u/old"))
    until("its name to be asked for", lambda: not os.path.exists(m.up(path)))
    refused(ENOENT, ls, m.up(path))
    os.mkdir(m.there(path))
    os.chown(m.there(path), OWNER, OWNER)
    assert ls(m.up(path)) == set()
    os.rmdir(m.there(path))
    os.rename(m.there("u/old"), m.there(path))
    until("its name to be asked for again", lambda: ls(m.up(path)) == before)


def test_a_directory_s_mode(m):
    os.chmod(m.there("u/tmp"), 0o755)
    os.chmod(m.up("u/tmp"), 0o700)
    assert os.stat(m.there("u/tmp")).st_mode & 0o777 == os.stat(m.up("u/tmp")).st_mode & 0o777 == 0o700


def test_times_before_the_servers_clock_is_known():
    """No half was looked at yet: nobody knows what time it is there, so who wants a directory's asks."""
    with Faulty() as m:
        m.maildir("u", uid=OWNER)
        os.utime(m.there("u/tmp"), (10**9, 10**9))
        m.fs_start()
        with acting_as(OWNER):
            assert os.stat(m.up("u/tmp")).st_mtime == 10**9
            touch(m.up("u/tmp/1"))
            assert os.stat(m.up("u/tmp")).st_mtime_ns == os.stat(m.there("u/tmp")).st_mtime_ns


@pytest.mark.parametrize("path", ["u/.A", "u/.A/new", "u/.A/tmp/file", "u/.A/new/1700000000.M1P1.host"])
def test_an_owner_that_another_host_has_set(path):
    """Who may is the server's to say, whatever this host remembers from before: model, seed 5."""
    with Faulty(faults={"attr_ms": 60000, "entry_ms": 60000}) as m:
        for folder in ("u", "u/.A"):
            m.maildir(folder, new=1, uid=OWNER)
        touch(m.there("u/.A/tmp/file"), b"x")
        os.chown(m.there(path), 0, 0)
        os.chmod(m.there(path), 0o700)
        m.fs_start()
        os.stat(m.up(path))
        os.chown(m.there(path), OWNER, OWNER)
        with acting_as(OWNER):
            if os.path.isdir(m.there(path)):
                assert ls(m.up(path)) == ls(m.there(path))
            else:
                with open(m.up(path), "rb"):
                    pass

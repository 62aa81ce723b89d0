# SPDX-License-Identifier: GPL-2.0-or-later
"""find, du, ls, stat: what looks at everything."""

import os
import re

import pytest

from twin import message


@pytest.mark.parametrize(
    "test",
    [
        "-type f",
        "-type d -empty",
        "-type l -o -type p",
        "-newer p/file10",
        "-newermt @1600000050",
        "! -newermt @1600000050.123456700",
        "-mmin +60",
        "-size +3",
        "-size -2",
        "-links +1",
        "-perm /6000",
        "-user 1234",
        "-samefile p/file01",
        "-name *:2,*S*",
        "-path */new/* -printf %f|%s|%m|%n|%U|%T@|%y|%l\\n",
        "-depth -print0",
    ],
)
def test_find(twin, test):
    """Sorted: in which order a directory is read is nobody's promise."""
    twin.fill()
    twin.proven()
    assert twin.run("find", ".", *test.split(" "), sort=True) != b""


def test_by_inode(twin):
    """The number in a listing is that of stat, and of the file below."""
    twin.fill()
    for half in ("u/new", "u/cur"):
        for name in os.listdir(os.path.join(twin.low, half)):
            ino = os.stat(os.path.join(twin.low, half, name)).st_ino
            found = twin.run_in(os.path.join(twin.mnt, half), "find", ".", "-inum", str(ino))
            assert found == (0, f"./{name}\n".encode(), b"")
    ls = twin.run_in(twin.mnt, "ls", "-iUR", "u")
    assert ls[0] == 0 and sorted(ls[1].splitlines()) == sorted(twin.run_in(twin.low, "ls", "-iUR", "u")[1].splitlines())


def stats(twin, *argv):
    """How many calls ask for a message's attributes while a program runs."""
    trace = os.path.join(twin.m.dir, "trace")
    calls = "trace=newfstatat,statx,lstat,stat,fstatat64"
    code, out, err = twin.run_in(twin.mnt, "strace", "-f", "-o", trace, "-e", calls, *argv)
    assert code == 0, err
    with open(trace, encoding="utf-8", errors="replace") as f:
        return len(re.findall(r'"[^"]*\.host[^"]*"', f.read())), out


def test_types_without_a_stat(twin):
    """A listing tells the type of each entry: no call for each message."""
    twin.fill(200)
    count, out = stats(twin, "find", "u", "-type", "f")
    assert out.count(b"\n") == 252 and count == 0
    count, out = stats(twin, "find", "u", "-size", "+0")
    assert count == 251  # the test is able to fail


@pytest.mark.parametrize("where", ["u", "p"])
def test_delete_while_reading(twin, where):
    twin.fill(300)
    twin.run("find", where, "-type", "f", "-name", "*[13579]*", "-delete")
    twin.same("none")
    assert twin.run("find", where, "-type", "f", "-name", "*[13579]*") == b""
    twin.run("find", where, "-delete")
    assert not os.path.exists(os.path.join(twin.low, where))


def test_moved_while_reading(twin):
    """find -exec on each message as it is found; each once."""
    twin.fill(120)
    twin.run("find", "u/new", "-type", "f", "-exec", "sh", "-c", 'mv "$1" "u/cur/${1##*/}:2,"', "sh", "{}", ";")
    assert os.listdir(os.path.join(twin.mnt, "u", "new")) == []
    twin.same("none")


def test_newer_sees_own_changes_at_once(twin):
    """A folder's times follow each change through the mount, though stats share a reading for a second."""
    twin.fill()
    twin.proven()
    cur = os.path.join(twin.mnt, "u", "cur")
    for half in ("u/new", "u/cur", "u/.Sent/cur"):
        os.utime(os.path.join(twin.low, half), ns=(10**18, 10**18))
    twin.proven()
    newer = ("find", "u", "-type", "d", "-name", "cur", "-newer", "u/dovecot-uidlist")
    assert twin.run_in(twin.mnt, *newer)[1] == b""
    name = os.listdir(cur)[0]
    os.rename(os.path.join(cur, name), os.path.join(cur, name.split(":")[0] + ":2,T"))
    assert twin.run_in(twin.mnt, *newer)[1] == b"u/cur\n"
    twin.true()


def test_each_change_is_in_the_times(twin):
    twin.fill()
    twin.proven()
    low, mnt = (os.path.join(t, "u", "cur") for t in (twin.low, twin.mnt))
    for i in range(20):
        before = os.stat(mnt)
        with open(os.path.join(mnt, f"18{i:08}.M1P1.host:2,"), "xb") as f:
            f.write(message(i))
        after = os.stat(mnt)
        assert after.st_mtime_ns != before.st_mtime_ns
        twin.true("u")
        os.unlink(os.path.join(low if i % 2 else mnt, f"18{i:08}.M1P1.host:2,"))
        assert len(os.listdir(mnt)) == len(os.listdir(low))


def test_disk_usage(twin):
    twin.fill()
    for argv in (("du", "-s", "--apparent-size", "-k", "."), ("du", "-a", "."), ("du", "--inodes", ".")):
        above, below = twin.run_in(twin.mnt, *argv), twin.run_in(twin.low, *argv)
        assert above[0] == 0 and sorted(above[1].splitlines()) == sorted(below[1].splitlines())
    fields = "--output=itotal,size"
    assert twin.run_in(twin.mnt, "df", fields, ".") == twin.run_in(twin.low, "df", fields, ".")

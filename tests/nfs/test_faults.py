# SPDX-License-Identifier: GPL-2.0-or-later
"""An NFS server out of order, as a mail-fetch host sees it through the mount: what fails fails as on plain NFS, and no
listing is ever wrong."""

import contextlib
import errno
import os
import shutil
import subprocess
import time

import pytest

import calls
import server
from daemon import until
from lab import OWNER, VERSION, Host, Tree, as_owner
from test_two_hosts import base, deliver, flag, take

AWAY_S = 20
MANY = 20000


@pytest.fixture(name="tree")
def _tree():
    with Tree() as tree:
        tree.maildir("u", new=3, cur=40)
        yield tree


@pytest.fixture(name="host")
def _host(tree):
    with Host("mf1", tree) as host:
        yield host


def assert_right(host, tree, user="u"):
    with as_owner():
        for half in ("new", "cur"):
            assert host.listed(user, half) == tree.real(user, half)


def both(host, *path):
    """The same path on plain NFS and through the mount."""
    return [os.path.join(host.nfs, host.tree.name, *path), host.up(*path)]


def fails_as_on_plain_nfs(host, what, user="u"):
    """what(where) with the tree on plain NFS, then through the mount. Returns the errno of both."""
    found = []
    for where in both(host):
        with as_owner(), pytest.raises(OSError) as e:
            what(where)
        found.append(e.value.errno)
    assert found[0] == found[1], [errno.errorcode.get(n) for n in found]
    return found[0]


# -- restart, stale handles


def test_a_restart_of_the_server(tree, host, processes):
    """With a message open, a listing half read, a session that waits."""
    assert_right(host, tree)
    message = tree.real("u", "cur")[0]
    with as_owner():
        session, path = processes(), host.up("u/Maildir/cur")
        fd = session(os.open, os.path.join(path, message), os.O_RDONLY)
        listing = os.scandir(path)
        names = {next(listing).name}
    server.restart()
    with as_owner():
        session.begin(os.pread, fd, 100, 0)
        names |= {entry.name for entry in listing}
        listing.close()
        assert names == set(tree.real("u", "cur"))
        assert session.end().startswith(b"Subject")
        flag(host.mnt, "u", tree)
        deliver(host.mnt, "u", "1900000000.M1P1.after")
    assert_right(host, tree)


def test_a_message_that_was_replaced_on_the_server(tree, host):
    """The client's handle of the old file is stale."""
    name = tree.real("u", "cur")[0]
    path = host.up("u/Maildir/cur", name)
    with as_owner(), open(path, "rb") as f:
        assert f.read().startswith(b"Subject: x")
    with open(tree.on("u/Maildir/tmp/other"), "xb") as f:
        f.write(b"Subject: another\n\n")
        os.fchown(f.fileno(), OWNER, OWNER)
    os.rename(tree.on("u/Maildir/tmp/other"), tree.on("u/Maildir/cur", name))
    assert_right(host, tree)
    with as_owner():
        until("the new message", lambda: open(path, "rb").read().startswith(b"Subject: another"))


def test_a_folder_that_was_made_anew_on_the_server(tree, host):
    """Each of its directories is stale to the client."""
    assert_right(host, tree)
    shutil.rmtree(tree.on("u/Maildir"))
    tree.maildir("u", new=1, cur=5)
    with as_owner():

        def found():
            """Until then the client may say so, but never that the folder is empty."""
            try:
                return host.listed("u", "cur") == tree.real("u", "cur")
            except OSError as e:
                assert e.errno in (errno.ESTALE, errno.ENOENT)
                return False

        until("the new folder", found)
        flag(host.mnt, "u", tree)
    assert_right(host, tree)


# -- away for a while


def answers_meanwhile(host):
    """maildexfs's own socket, which needs no server."""
    assert host.fs_status()["maildexfs.uptime_s"].isdigit()


@contextlib.contextmanager
def away(host):
    """The block is done when the server has been away for AWAY_S."""
    with server.unplugged("mf1"):
        start = time.monotonic()
        yield
        while time.monotonic() - start < AWAY_S:
            answers_meanwhile(host)
            time.sleep(1)


def listed(path):
    return len(os.listdir(path)), len(set(os.listdir(path)))


def test_away_in_the_middle_of_a_listing(tree, host, processes):
    tree.maildir("large", cur=1)
    first = tree.on("large/Maildir/cur", tree.real("large", "cur")[0])
    for i in range(MANY - 1):
        os.link(first, tree.on("large/Maildir/cur", f"16{i}.M{i}P1.in:2,S"))

    def readdirs():
        return sum(op.count for kind, op in calls.read(host.nfs).items() if kind.startswith("READDIR"))

    with as_owner():
        session, before = processes(), readdirs()
    session.begin(listed, host.up("large/Maildir/cur"))
    until("the listing to begin", lambda: readdirs() > before)
    with away(host):
        assert not session.answers(1), "it was read before the server went away"
    assert session.end() == (MANY, MANY)


def test_away_at_a_rename_and_a_delivery(tree, host, processes):
    assert_right(host, tree)
    with as_owner():
        flagging, delivering, listing = processes(), processes(), processes()
    flagged = tree.real("u", "cur")[0]
    with away(host):
        cur = host.up("u/Maildir/cur")
        flagging.begin(os.rename, os.path.join(cur, flagged), os.path.join(cur, flagged + "T"))
        delivering.begin(deliver, host.mnt, "u", "1900000000.M1P1.away")
        assert not flagging.answers(1) and not delivering.answers(1)
        listing.begin(os.listdir, host.up("u/Maildir/new"))
    flagging.end()
    delivering.end()
    assert set(tree.real("u", "new")) >= set(listing.end()) >= {n for n in tree.real("u", "new") if "away" not in n}
    assert flagged + "T" in tree.real("u", "cur") and "1900000000.M1P1.away" in tree.real("u", "new")
    assert_right(host, tree)


# -- read-only, full


def test_an_export_that_becomes_read_only(tree, host):
    assert_right(host, tree)
    name = tree.real("u", "cur")[0]
    with server.exported(rw="ro"):
        for what in (
            lambda where: deliver(where, "u", "1900000000.M1P1.ro"),
            lambda where: flag(where, "u", tree),
            lambda where: take(where, "u", tree),
            lambda where: os.unlink(f"{where}/u/Maildir/cur/{name}"),
            lambda where: os.utime(f"{where}/u/Maildir/cur"),
        ):
            assert fails_as_on_plain_nfs(host, what) == errno.EROFS
        assert_right(host, tree)
        with as_owner(), open(host.up("u/Maildir/cur", name), "rb") as f:
            assert f.read().startswith(b"Subject")
    with as_owner():
        deliver(host.mnt, "u", "1900000000.M1P1.rw")
        flag(host.mnt, "u", tree)
    assert_right(host, tree)


def big(where, name):
    """A delivery of 1 MB, as a delivery agent makes sure of it."""
    path = f"{where}/u/Maildir/tmp/{name}"
    try:
        with open(path, "xb") as f:
            f.write(b"x" * (1 << 20))
            f.flush()
            os.fsync(f.fileno())
        os.rename(path, f"{where}/u/Maildir/new/{name}")
    except OSError:
        os.unlink(path)
        raise


@pytest.mark.parametrize("what", ["files", "blocks"])
def test_quota_is_full(tree, host, what):
    assert_right(host, tree)
    limit, delivery = ({"files": 1}, deliver) if what == "files" else ({"blocks": 512}, None)
    with server.quota(**limit):
        if what == "files":
            with as_owner():
                deliver(host.mnt, "u", "1900000000.M1P1.last")
            assert fails_as_on_plain_nfs(host, lambda where: delivery(where, "u", "1900000000.M2P1.over")) == errno.EDQUOT
        else:
            assert fails_as_on_plain_nfs(host, lambda where: big(where, "1900000000.M2P1.over")) == errno.EDQUOT
        assert_right(host, tree)
        with as_owner():  # what needs no room
            flag(host.mnt, "u", tree)
            take(host.mnt, "u", tree)
            os.unlink(host.up("u/Maildir/cur", tree.real("u", "cur")[0]))
        assert_right(host, tree)
    with as_owner():
        deliver(host.mnt, "u", "1900000000.M3P1.after")
    assert_right(host, tree)


# -- failover


def right_or_an_error(host, tree, when):
    """Never an empty folder. Returns the error's name."""
    with as_owner():
        try:
            assert host.listed("u", "cur") == tree.real("u", "cur"), when
        except OSError as e:
            return errno.errorcode[e.errno]
    return None


def test_failover_to_storage_with_another_fsid(tree, host):
    """The client's handles mean nothing there; NFS 4 finds its way from the root again if that is the same."""
    assert_right(host, tree)
    with server.exported(fsid="fsid=7"):
        print(f"NFS {VERSION}: with another fsid: {right_or_an_error(host, tree, 'failed over') or 'right'}")
    until("the storage to be back", lambda: right_or_an_error(host, tree, "back") is None)
    assert_right(host, tree)


def test_failover_to_a_copy(tree, host):
    """The same names, other inodes: that is not the tree that is served (law 7)."""
    assert_right(host, tree)
    with as_owner():
        handle = os.open(host.up("u/Maildir/cur"), os.O_RDONLY)
    subprocess.run(["cp", "-a", tree.path, tree.path + ".copy"], check=True)
    os.rename(tree.path, tree.path + ".old")
    os.rename(tree.path + ".copy", tree.path)
    try:
        shutil.rmtree(tree.on("u/Maildir/cur"))
        os.mkdir(tree.on("u/Maildir/cur"), 0o700)  # what must not be shown
        os.chown(tree.on("u/Maildir/cur"), OWNER, OWNER)

        def fails():
            with as_owner():
                try:
                    names = host.listed("u", "cur")
                except OSError as e:
                    return errno.errorcode[e.errno]
            assert names, "an empty folder was shown"
            return None  # the client has not looked yet

        print(f"NFS {VERSION}: after a failover to a copy: {until('an error', fails)}")
    finally:
        shutil.rmtree(tree.path)
        os.rename(tree.path + ".old", tree.path)
        os.close(handle)
    until("the tree to be back", lambda: right_or_an_error(host, tree, "back") is None)
    assert_right(host, tree)


def test_the_servers_clock_goes_back(tree, host):
    """What changes then has older times than what is known."""
    assert_right(host, tree)
    with server.clock_back(60):
        for i in range(5):
            for where in (tree.path, host.mnt, both(host)[0]):
                with as_owner():
                    before = {base(n) for half in ("new", "cur") for n in tree.real("u", half)}
                    deliver(where, "u", f"19{i}.{len(where)}")
                    flag(where, "u", tree, i)
                    names = [base(n) for half in ("new", "cur") for n in host.listed("u", half)]
                assert before <= set(names) and len(names) == len(set(names))
                until("the listing to be the server's", lambda: right_or_an_error(host, tree, "back") is None)
        assert_right(host, tree)
    with as_owner():
        flag(tree.path, "u", tree)
    assert_right(host, tree)

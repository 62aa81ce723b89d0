# SPDX-License-Identifier: GPL-2.0-or-later
"""maildexd as a black box: the real program, its real socket, a real tree; nothing is mounted but small tmpfs."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess

import pytest

from daemon import (
    ADD,
    CUR,
    ERROR,
    EVENT,
    FEED,
    HELLO,
    LOOK,
    NEED,
    NEW,
    NOTIFY,
    REBUILD,
    REMOVE,
    RENAME,
    ROLE_FS,
    ROLE_NOTIFY,
    SCAN,
    STATUS,
    END,
    Client,
    Daemon,
    change,
    event,
    message,
    put_str,
    until,
    xxh3_listing,
)

NOBODY = 65534


@contextlib.contextmanager
def as_uid(uid):
    """Connections made here are that user's (SO_PEERCRED)."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def locked(daemon):
    """Somebody holds the index's write lock, so that nothing can be applied."""
    db = sqlite3.connect(daemon.index, isolation_level=None, timeout=60)
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        db.execute("ROLLBACK")
        db.close()


def settle(d, c, folder):
    """Rebuilds until the folder's rows are such that no change can share their stamps any more."""
    for half in (NEW, CUR):
        until("a settled row", lambda: c.rebuild(folder)[0] == 0 and not d.row(folder, half)["unsettled"])


@pytest.fixture(name="d")
def daemon():
    with Daemon() as d:
        d.maildir("alice", new=3, cur=5)
        d.maildir("alice/.Sent", cur=2)
        yield d


@pytest.fixture(name="running")
def running_daemon(d):
    d.start()
    return d


# -- start and end


@pytest.mark.parametrize("foreground", [True, False])
def test_starts_and_ends(d, foreground):
    if foreground:
        d.start()
        pid = d.process.pid
    else:
        done = subprocess.run(d.command(), timeout=60, check=False, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr
        with d.client() as c:
            pid = int(c.status()["maildexd.pid"])
    with d.client() as c:
        assert c.status()["maildexd.state"] == "ok"
        assert c.rebuild()[0] == 0
    if foreground:
        d.stop()
    else:
        os.kill(pid, signal.SIGTERM)
        until("the daemon to end", lambda: not os.path.exists(d.index + "-wal") and not os.path.exists(d.socket))
    assert not os.path.exists(d.socket)
    assert not os.path.exists(d.index + "-wal")
    assert len(d.names("alice", CUR)) == 5


def refusal(d, code, *words, **conf):
    d.conf.update(conf)
    got, text = d.refused()
    assert got == code, text
    for word in words:
        assert word in text, text
    assert len(text.splitlines()) == 1, text


def test_refuses_root_not_there(d):
    refusal(d, 3, d.path("nowhere"), root=d.path("nowhere"))
    assert not os.path.exists(os.path.dirname(d.index))
    assert not os.path.exists(os.path.dirname(d.socket))


def test_refuses_root_no_directory(d):
    with open(d.path("file"), "w", encoding="ascii"):
        pass
    refusal(d, 2, d.path("file"), root=d.path("file"))


def test_refuses_unknown_user(d):
    refusal(d, 2, "maildex-nobody-here", user="maildex-nobody-here")
    assert not os.path.exists(os.path.dirname(d.index))


def test_refuses_empty_index(d):
    refusal(d, 2, "index", "bus", index="")


def test_refuses_index_of_another_tree(d):
    d.start()
    d.stop()
    other = os.path.join(d.dir, "other")
    os.mkdir(other)
    before = open(d.index, "rb").read()
    refusal(d, 3, d.index, root=other)
    assert open(d.index, "rb").read() == before


def test_refuses_newer_schema(d):
    d.start()
    d.stop()
    db = sqlite3.connect(d.index)
    db.execute("PRAGMA user_version = 999")
    db.close()
    refusal(d, 3, d.index, "999")


def test_refuses_second_on_same_index(running):
    refusal(running, 3, running.index, "another maildexd", socket=running.socket + "2")
    with running.client() as c:
        assert c.status()["maildexd.state"] == "ok"
    assert not os.path.exists(running.socket + "2")


def test_refuses_second_on_same_socket(running):
    refusal(running, 3, running.socket, "another maildexd", index=running.index + "2")
    with running.client() as c:
        assert c.status()["maildexd.state"] == "ok"


def test_refuses_index_that_the_user_cannot_write(d):
    folder = os.path.join(d.dir, "rootonly")
    os.mkdir(folder, 0o755)
    refusal(d, 3, folder, "mail", user="mail", index=folder + "/index.sqlite")
    assert os.listdir(folder) == []


def test_refuses_folder_that_cannot_be_made(d):
    with open(d.path("file"), "w", encoding="ascii"):
        pass
    refusal(d, 3, d.path("file"), index=d.path("file", "below", "index.sqlite"))


def test_refuses_bad_configuration(d):
    refusal(d, 2, "maildex.conf", "scans", scans="many")


def test_refuses_arguments(d):
    code, text = d.refused("something")
    assert code == 2
    assert "something" in text


def test_left_socket_is_replaced(d):
    d.start()
    d.kill()
    assert os.path.exists(d.socket)
    d.start()
    with d.client() as c:
        assert c.status()["maildexd.state"] == "ok"


# -- events


def test_notify_message(running):
    d = running
    with d.client(ROLE_NOTIFY) as c:
        assert c.rebuild()[0] == 0
        ino = d.deliver("alice", "1700099999.M9P9.host")
        c.notify("alice/new/1700099999.M9P9.host")
        d.idle(c)
        assert d.names("alice", NEW)["1700099999.M9P9.host"] == ino
        assert d.row("alice", NEW)["need"] == 1  # applied beyond what was listed
        assert c.rebuild("alice")[0] == 0
        assert d.row("alice", NEW)["need"] == 0
        assert d.names("alice", NEW) == d.disk("alice", NEW)


def test_notify_of_nothing_changes_nothing(running):
    d = running
    with d.client(ROLE_NOTIFY) as c:
        assert c.rebuild()[0] == 0
        c.notify("alice/new/1700099999.M9P9.host")
        c.notify("alice/")
        s = d.idle(c)
        assert d.names("alice", NEW) == d.disk("alice", NEW)
        assert d.row("alice", NEW)["need"] == 0
        assert s["events.looked_up"] == "2"


@pytest.mark.parametrize("path", ["alice", "alice/new", "alice/new/"])
def test_notify_maildir(running, path):
    d = running
    with d.client(ROLE_NOTIFY) as c:
        settle(d, c, "alice")
        d.deliver("alice", "1700099999.M9P9.host")
        c.notify(path)
        d.idle(c)
        assert d.row("alice", NEW)["need"] == 1
        assert d.row("alice", CUR)["need"] == 0


def test_folder_not_held_is_ignored(running):
    with running.client() as c:
        c.notify("alice/new/1700000000.M1P1.host")
        assert running.idle(c)["events.ignored"] == "1"
        assert running.row("alice", NEW) is None


def test_stranger_is_not_believed(running):
    """Any user may notify, but what it says is looked up, and its windows prove nothing."""
    d = running
    with d.client() as c:
        settle(d, c, "alice")
        stamp = d.stamp("alice", CUR)
        with as_uid(NOBODY):
            stranger = d.client(ROLE_NOTIFY)
        with stranger:
            name = "1600000000.M1P1.host:2,S"
            stranger.event("alice", CUR, [change(REMOVE, name)], window=(stamp, stamp.later()))
            stranger.event("alice", CUR, [change(ADD, "1699999999.M1P1.host:2,", ino=77)], window=(stamp, stamp.later()))
            stranger.notify("alice/cur/1600000001.M1P1.host:2,S")
            s = d.idle(stranger)
            assert int(s["events.looked_up"]) >= 2
            assert d.names("alice", CUR) == d.disk("alice", CUR)
            assert d.row("alice", CUR)["trust"] == 0


@pytest.mark.parametrize(
    "refused",
    [
        lambda c: c.send(message(SCAN, put_str("alice"), b"\0")),
        lambda c: c.send(message(REBUILD, b"\1", struct.pack("<I", 0))),
        lambda c: c.send(message(HELLO, bytes([ROLE_FS]), put_str("x"))),
    ],
)
def test_stranger_may_not(running, refused):
    hello = refused.__code__.co_names[-1] != "ROLE_FS" and "HELLO" not in refused.__code__.co_names
    with as_uid(NOBODY):
        c = running.client(ROLE_NOTIFY, hello=hello)
    with c:
        refused(c)
        assert "root" in c.error()
        assert c.recv() == b""


def test_windowed_event_raises_and_is_confirmed(d):
    d.conf.update(window_min=1, confirm="1s")
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        settle(d, c, "alice")
        pre = d.stamp("alice", CUR)
        old, new = "1600000000.M1P1.host:2,S", "1600000000.M1P1.host:2,RS"
        ino = os.stat(d.path("alice", "cur", old)).st_ino
        os.rename(d.path("alice", "cur", old), d.path("alice", "cur", new))
        post = d.stamp("alice", CUR)
        fs.event("alice", CUR, [change(RENAME, new, old, ino)], window=(pre, post), epoch=1, sequence=1)
        until("the event to raise the row", lambda: d.row("alice", CUR)["trust"])
        assert d.row("alice", CUR)["need"] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)
        # A silent change that hid inside the window would be found by this, and counted.
        until("confirm", lambda: int(c.status()["confirm.done"]) >= 1)
        assert d.row("alice", CUR)["trust"] == 0
        s = c.status()
        assert (s["scrub.repaired_trust"], s["scrub.repaired_other"]) == ("0", "0")


def test_confirm_repairs_what_hid_in_a_window(d):
    d.conf.update(window_min=1, confirm="1s")
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        settle(d, c, "alice")
        pre = d.stamp("alice", CUR)
        ino = d.deliver("alice", "1699999998.M1P1.host:2,", "cur")
        d.deliver("alice", "1699999999.M1P1.host:2,", "cur")  # nobody tells of this one
        post = d.stamp("alice", CUR)
        fs.event(
            "alice", CUR, [change(ADD, "1699999998.M1P1.host:2,", ino=ino)], window=(pre, post), epoch=1, sequence=1
        )
        until("the event to raise the row", lambda: d.row("alice", CUR)["trust"])
        until("confirm", lambda: int(c.status()["scrub.repaired_trust"]) == 1)
        assert d.names("alice", CUR) == d.disk("alice", CUR)
        assert c.status()["scrub.repaired_other"] == "0"
        feeds = [fs.feed()]
        while feeds[-1].changes[0][0] != NEED:
            feeds.append(fs.feed())


def raised(d, fs, c, sequence, name):
    """Makes alice/cur stand on trust by a windowed event."""
    settle(d, c, "alice")
    pre = d.stamp("alice", CUR)
    ino = d.deliver("alice", name, "cur")
    fs.event(
        "alice", CUR, [change(ADD, name, ino=ino)], window=(pre, d.stamp("alice", CUR)), epoch=1, sequence=sequence
    )
    until("the event to raise the row", lambda: d.row("alice", CUR)["trust"])
    assert d.row("alice", CUR)["need"] == 0


def test_hole_in_sequence_is_a_gap(d):
    d.conf.update(window_min=1)
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        raised(d, fs, c, 1, "1650000001.M1P1.host:2,S")
        gaps = int(c.status()["gaps"])
        fs.event("alice", NEW, [change(LOOK)], epoch=1, sequence=2)
        d.idle(fs)
        assert int(c.status()["gaps"]) == gaps
        fs.event("alice", NEW, [change(LOOK)], epoch=1, sequence=4)
        until("a gap", lambda: d.row("alice", CUR)["need"])
        assert int(c.status()["gaps"]) == gaps + 1


@pytest.mark.parametrize("goodbye", [True, False])
def test_peer_that_goes_away(d, goodbye):
    d.conf.update(window_min=1)
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        raised(d, fs, c, 1, "1650000001.M1P1.host:2,S")
        if goodbye:
            fs.send(message(END, b"\0", put_str("")))
        fs.close()
        until("the peer to be gone", lambda: c.status()["peers.fs"] == "0")
        if goodbye:
            with d.client(ROLE_FS, "host") as again:
                again.event("alice", NEW, [change(LOOK)], epoch=1, sequence=2)
                d.idle(again)
                again.send(message(END, b"\0", put_str("")))
            assert d.row("alice", CUR)["need"] == 0
        else:
            until("a gap", lambda: d.row("alice", CUR)["need"])


@pytest.mark.parametrize("clean", [True, False])
def test_events_over_a_restart(d, clean):
    """A clean end keeps in mind what was received; after any other, something may be missing."""
    d.conf.update(window_min=1)
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        raised(d, fs, c, 1, "1650000001.M1P1.host:2,S")
        if clean:
            d.stop()
        else:
            d.kill()
    d.start()
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        fs.event("alice", NEW, [change(LOOK)], epoch=1, sequence=2)
        d.idle(fs)
        assert d.row("alice", CUR)["need"] == (0 if clean else 1)
        # What it dropped while we were away has no number: a new epoch says that there may be such.
        fs.event("alice", NEW, [change(LOOK)], epoch=2, sequence=1)
        until("a gap", lambda: d.row("alice", CUR)["need"])


def test_doubled_and_late_events(running):
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        settle(d, c, "alice")
        name = "1650000001.M1P1.host:2,S"
        pre = d.stamp("alice", CUR)
        ino = d.deliver("alice", name, "cur")
        add = (change(ADD, name, ino=ino),)
        window = (pre, d.stamp("alice", CUR))
        fs.event("alice", CUR, add, window=window, epoch=1, sequence=1)
        os.unlink(d.path("alice", "cur", name))
        fs.event("alice", CUR, [change(REMOVE, name, ino=ino)], epoch=1, sequence=2)
        fs.event("alice", CUR, add, window=window, epoch=1, sequence=1)
        d.idle(fs)
        assert d.names("alice", CUR) == d.disk("alice", CUR)


def test_event_of_a_newer_version_means_look(running):
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        settle(d, c, "alice")
        d.deliver("alice", "1650000001.M1P1.host:2,S", "cur")
        fs.send(message(EVENT, event("alice", CUR, [], version=9)))
        d.idle(fs)
        assert d.row("alice", CUR)["need"] == 1


def test_feed(running):
    d = running
    with d.client(ROLE_FS, "one") as one, d.client(ROLE_FS, "two") as two, d.client() as c:
        assert c.rebuild()[0] == 0
        for fs in (one, two):
            # The rebuild found halves that weren't held.
            while True:
                f = fs.feed()
                assert f.changes[0][0] == NEED
                if (f.folder, f.half) == ("alice/.Sent", CUR):
                    break
        ino = d.deliver("alice", "1700099999.M9P9.host")
        c.notify("alice/new/1700099999.M9P9.host")
        for fs in (one, two):
            f = fs.feed()
            while f.changes[0][0] == NEED:
                f = fs.feed()
            assert (f.folder, f.half) == ("alice", NEW)
            assert f.changes == [(ADD, "1700099999.M9P9.host", "", ino)]
        one.event("alice", CUR, [change(LOOK)], epoch=1, sequence=1)
        f = two.feed()
        assert (f.folder, f.half, f.changes[0][0], f.sequence) == ("alice", CUR, LOOK, 1)
        two.event("alice", CUR, [change(NEED)], epoch=1, sequence=1)
        f = one.feed()  # not its own
        assert (f.changes[0][0], f.sequence) == (NEED, 1)


def test_peer_that_does_not_read(running):
    d = running
    with d.client(ROLE_FS, "deaf") as deaf, d.client(ROLE_FS, "other") as other, d.client() as c:
        changes = [change(ADD, f"{i:03}" + "x" * 250) for i in range(128)]
        for i in range(400):
            other.event("bob", NEW, changes, epoch=1, sequence=i + 1)
        until("it to be disconnected", lambda: c.status()["peers.fs"] == "1")
        assert c.status()["maildexd.state"] == "ok"
        while deaf.recv():
            pass


# -- scans


def test_scan_handed_over(running):
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        assert c.rebuild("alice/.Sent")[0] == 0
        stamp = d.stamp("alice", CUR)
        fs.scan("alice", CUR, stamp, d.disk("alice", CUR))
        until("the row", lambda: d.row("alice", CUR))
        assert d.names("alice", CUR) == d.disk("alice", CUR)
        row = d.row("alice", CUR)
        assert (row["need"], row["trust"], row["unsettled"]) == (0, 0, 0)
        assert c.status()["scans.handed_over"] == "1"
        assert c.status()["lower.listings"] == "2"


def test_scan_that_is_too_old(running):
    """It is dropped, and the half listed by maildexd itself."""
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        assert c.rebuild("alice")[0] == 0
        old = d.stamp("alice", CUR)
        d.deliver("alice", "1650000001.M1P1.host:2,S", "cur")
        assert c.rebuild("alice")[0] == 0
        done = int(c.status()["scans.done"])
        fs.scan("alice", CUR, old, {"1.2.3:2,": 5})
        until("the late listing", lambda: int(c.status()["scans.done"]) == done + 1)
        assert c.status()["scans.too_old"] == "1"
        assert d.names("alice", CUR) == d.disk("alice", CUR)


def test_names_of_all_kinds(running):
    d = running
    names = ["n" * 255, "odd\udcff\udc80:2,S", "new\nline:2,", "dovecot-uidlist", ":2,S", "a b", "x:1,y"]
    for n in names:
        d.deliver("alice", n, "cur")
    os.mkdir(d.path("alice", "cur", "folder"))
    with d.client() as c:
        assert c.rebuild()[0] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)


def test_rebuild_counts_and_fails(running):
    d = running
    with d.client() as c:
        code, text, progress, failed = c.rebuild("alice", "alice/.Sent", "nobody")
        assert code == 1
        assert [f[0] for f in failed] == ["nobody"]
        assert progress["done"] == progress["known"] == 2
        assert progress["messages"] == 10
        assert "2 folders" in text
        assert c.rebuild("../x")[0] == -1
        assert c.rebuild("")[2]["done"] == 2


def test_rebuild_forgets_what_is_gone(running):
    d = running
    d.maildir("bob", cur=1)
    d.maildir("carol", cur=1)
    with d.client() as c:
        assert c.rebuild()[0] == 0
        shutil.rmtree(d.path("alice"))
        shutil.rmtree(d.path("bob", "new"))  # no Maildir any more
        assert c.rebuild()[0] == 0
        assert d.query("SELECT DISTINCT CAST(folder AS TEXT) FROM half") == [("carol",)]
        assert d.query("SELECT count(*) FROM message") == [(1,)]


def stalled(d, c):
    """Starts a rebuild of all and returns a held lock when it is half-way."""
    c.send(message(REBUILD, b"\1", struct.pack("<I", 0)))
    until("the rebuild to be half-way", lambda: d.query("SELECT count(*) FROM half")[0][0] > 20)
    stack = contextlib.ExitStack()
    stack.enter_context(locked(d))
    return stack


@pytest.mark.parametrize("how", ["kill", "hang up"])
def test_rebuild_is_resumed(d, how):
    for i in range(1500):
        d.maildir(f"user{i}")
    d.conf.update(scans=1)
    d.start()
    with d.client() as c, d.client() as other:
        lock = stalled(d, c)
        with lock:
            assert other.rebuild()[1].startswith("a rebuild is under way")
            if how == "kill":
                d.kill()
            else:
                c.close()
        if how == "kill":
            d.start()
        else:
            until("it to stop", lambda: other.status()["rebuild.state"] == "idle")
    with d.client() as c:
        before = d.query("SELECT count(*) FROM half WHERE scanned_ns > 0")[0][0]
        assert before < 3000, "the rebuild was not stopped half-way"
        code, _, progress, failed = c.rebuild()
        assert (code, failed) == (0, [])
        assert progress["done"] == progress["known"] == 1502
        assert 0 < progress["skipped"] <= before // 2 + 1
        # Ended: the next one starts anew.
        assert c.rebuild()[2]["skipped"] == 0


def test_scrub_repairs_and_counts(d):
    d.conf.update(scrub_interval="1s")
    d.start()
    with d.client() as c:
        settle(d, c, "alice")
        s = until("scrubs", lambda: int(c.status()["scrub.done"]) > 4 and c.status())
        assert s["scrub.repaired_other"] == "0"
        # A row that claims to be right and isn't: nothing but a bug makes it.
        name, ino = next(iter(d.disk("alice", CUR).items()))
        db = sqlite3.connect(d.index, timeout=60, isolation_level=None)
        db.create_function("less", 1, lambda s: (s - xxh3_listing(name, ino) + 2**63) % 2**64 - 2**63)
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM message WHERE name = ?", (os.fsencode(name),))
        db.execute("UPDATE half SET count = count - 1, sum = less(sum) WHERE folder = ? AND half = 1", (b"alice",))
        db.execute("COMMIT")
        db.close()
        until("the repair", lambda: c.status()["scrub.repaired_other"] == "1")
        assert d.names("alice", CUR) == d.disk("alice", CUR)
        assert "please report" in d.logged()


def test_scrub_forgets_folders_that_are_gone(d):
    d.conf.update(scrub_interval="1s")
    d.start()
    with d.client() as c:
        assert c.rebuild()[0] == 0
        shutil.rmtree(d.path("alice", ".Sent"))
        until("the row to be dropped", lambda: d.row("alice/.Sent", CUR) is None)
        assert d.row("alice", CUR)


# -- whom it runs as


def test_reads_folders_as_their_owners(d):
    d.conf.update(user="mail")
    for uid in (60001, 60002, 60003):
        d.maildir(f"u{uid}", new=2, cur=3, uid=uid)
    for sub in ("", "/new", "/cur", "/tmp", "/.Sent", "/.Sent/cur", "/.Sent/new", "/.Sent/tmp"):
        os.chown(d.path("alice") + sub, 60001, 60001)
    d.start()
    with open(f"/proc/{d.process.pid}/status", encoding="ascii") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f)
    mail = subprocess.check_output(["id", "-u", "mail"]).decode().strip()
    assert status["Uid"].split() == [mail] * 4
    assert status["Groups"].strip() == ""
    assert status["CapPrm"] == status["CapEff"] == "00000000000000c0"  # SETGID, SETUID
    assert status["CapInh"] == "0000000000000000"
    with d.client() as c:
        assert c.rebuild()[0::3] == (0, [])
        for uid in (60001, 60002, 60003):
            assert d.names(f"u{uid}", CUR) == d.disk(f"u{uid}", CUR)
            d.deliver(f"u{uid}", "1700099999.M9P9.host")
            c.notify(f"u{uid}/new/1700099999.M9P9.host")
        d.idle(c)
        for uid in (60001, 60002, 60003):
            assert d.names(f"u{uid}", NEW) == d.disk(f"u{uid}", NEW)
    d.stop()
    assert not os.path.exists(d.socket)


def test_index_of_root_becomes_the_users(d):
    d.start()
    d.stop()
    os.chown(os.path.dirname(d.index), *[int(subprocess.check_output(["id", o, "mail"])) for o in ("-u", "-g")])
    d.conf.update(user="mail")
    d.start()
    with d.client() as c:
        assert c.status()["maildexd.state"] == "ok"


def test_runs_unprivileged(d):
    """Not as root: as it is, without switching."""
    for top, dirs, files in os.walk(d.dir):
        for n in ["", *dirs, *files]:
            os.chown(os.path.join(top, n), NOBODY, NOBODY)
    command = d.command("-f")
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    with open(d.log, "wb") as log:
        d.process = subprocess.Popen(command, user=NOBODY, group=NOBODY, extra_groups=[], stderr=log, env=env)

    def connected():
        assert d.process.poll() is None, d.logged()
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return Client(d.socket)

    with until("it to answer", connected) as c:
        assert c.rebuild()[0] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)


# -- faults


def test_kill_and_restart(running):
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        assert c.rebuild()[0] == 0
        for i in range(50):
            d.deliver("alice", f"17100000{i:02}.M1P1.host")
            fs.event("alice", NEW, [change(ADD, f"17100000{i:02}.M1P1.host")], epoch=1, sequence=i + 1)
        d.kill()
    d.start()
    with d.client() as c:
        row = d.row("alice", NEW)
        assert row["count"] == len(d.names("alice", NEW))
        # Whatever was lost: the row doesn't claim to be right, or its stamp is not that of the disk.
        assert row["need"] or row["count"] == 3
        assert c.rebuild()[0] == 0
        assert d.names("alice", NEW) == d.disk("alice", NEW)


def damage(path):
    """All pages but the first: SQLite takes it for one of its own until it reads."""
    with open(path, "r+b") as f:
        f.seek(4096)
        f.write(b"\xff" * (os.path.getsize(path) - 4096))


def test_damaged_index_at_start(d):
    d.start()
    with d.client() as c:
        assert c.rebuild()[0] == 0
    d.stop()
    damage(d.index)
    d.start()
    with d.client() as c:
        s = c.status()
        assert (s["maildexd.state"], s["index.damaged"], s["index.halves"]) == ("ok", "1", "0")
        assert os.path.exists(d.index + ".damaged")
        assert c.rebuild()[0] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)


def test_damaged_index_while_running(d):
    d.maildir("big", cur=3000)
    d.start()
    with d.client() as c:
        assert c.rebuild()[0] == 0
    d.stop()
    d.start()
    with d.client() as c:
        damage(d.index)
        c.notify("big/cur/1600000000.M1P1.host:2,S")
        until("the damage to be seen", lambda: c.status()["index.damaged"] == "1")
        assert c.status()["maildexd.state"] == "ok"
        assert c.rebuild()[0] == 0
        assert d.names("big", CUR) == d.disk("big", CUR)
    assert d.logged().count("built anew") == 1


def test_index_deleted(running):
    d = running
    with d.client() as c:
        assert c.rebuild()[0] == 0
        for suffix in ("", "-wal", "-shm"):
            os.unlink(d.index + suffix)
        until("a new index", lambda: os.path.exists(d.index) and c.status()["index.reopened"] == "1")
        assert c.status()["maildexd.state"] == "ok"
        assert c.rebuild()[0] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)
    assert d.logged().count("was deleted or replaced") == 1


def test_full_disk(d):
    folder = os.path.dirname(d.index)
    os.mkdir(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        d.conf.update(window_min=1)
        d.start()
        with d.client(ROLE_FS, "host") as fs, d.client() as c:
            raised(d, fs, c, 1, "1650000001.M1P1.host:2,S")
            filler = os.path.join(folder, "filler")
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as f:
                while True:
                    f.write(b"x" * 4096)
            names = [change(ADD, f"16600{i:05}" + "x" * 200, ino=i + 1) for i in range(128)]
            stamp = d.stamp("alice", CUR)
            i = 0
            while c.status()["index.batches_dropped"] == "0":
                i += 1
                fs.event("alice", CUR, names, window=(stamp, stamp.later()), epoch=1, sequence=1 + i)
                stamp = stamp.later()
                fs.event("alice", CUR, [change(LOOK)], epoch=1, sequence=1 + i)
                assert i < 1000
            assert c.status()["maildexd.state"].startswith("index: ")
            assert d.logged().count("tried again every second") == 1
            os.unlink(filler)
            until("it to recover", lambda: c.status()["maildexd.state"] == "ok")
            until("the gap to be written", lambda: d.row("alice", CUR)["need"])
            assert c.rebuild("alice")[0] == 0
            assert d.names("alice", CUR) == d.disk("alice", CUR)
        d.stop()
    finally:
        if d.process:
            d.kill()
        subprocess.run(["umount", folder], check=True)


def test_queue_overflow_means_need(running):
    d = running
    with d.client(ROLE_FS, "host") as fs, d.client() as c:
        settle(d, c, "alice")
        assert d.row("alice", CUR)["need"] == 0
        with locked(d):
            changes = [change(ADD, f"16600{i:05}.M1P1.host:2,", ino=i + 1) for i in range(128)]
            # Twice what fits: before it meets the lock, maildexd may take all that waits, but only once.
            for i in range(2 * 65536 // 128 + 20):
                fs.event("alice", CUR, changes, epoch=1, sequence=i + 1)
            s = until("the overflow", lambda: int(c.status()["queue.overflows"]) > 0 and c.status())
            assert int(s["queue.changes"]) <= int(s["queue.limit"])
            c.notify("alice")  # nobody waits meanwhile
        until("the row to need a listing", lambda: d.row("alice", CUR)["need"])
        until("the queue to be empty", lambda: c.status()["queue.changes"] == "0")
        assert c.rebuild("alice")[0] == 0
        assert d.names("alice", CUR) == d.disk("alice", CUR)


def test_tree_goes_away(running):
    """No row is dropped, nothing is believed to be gone; and it comes back by itself."""
    d = running
    with d.client() as c:
        assert c.rebuild()[0] == 0
        before = d.names("alice", CUR)
        os.rename(d.root, d.root + ".away")
        os.mkdir(d.root)
        s = until("the state", lambda: c.status()["maildexd.state"] != "ok" and c.status())
        assert s["maildexd.state"].startswith("tree: ") and d.root in s["maildexd.state"]
        code, text, _, _ = c.rebuild()
        assert code == 3 and d.root in text
        c.notify("alice/cur/1600000000.M1P1.host:2,S")
        d.idle(c)
        assert d.names("alice", CUR) == before
        os.rmdir(d.root)
        os.rename(d.root + ".away", d.root)
        until("the tree to be back", lambda: c.status()["maildexd.state"] == "ok")
        assert c.rebuild()[0] == 0
    log = d.logged()
    assert log.count("nothing is looked up, scanned or dropped") == 1
    assert log.count("the tree is back") == 1


# -- malformed input


def garbage():
    good = event("alice", NEW, [change(ADD, "1.2.3")], epoch=1, sequence=1)
    yield "empty type", b"\1"
    yield "event of nothing", message(EVENT)
    yield "event cut short", message(EVENT, good[:-3])
    yield "event with more behind", message(EVENT, good, b"x")
    yield "folder with ..", message(EVENT, event("alice/../bob", NEW, [change(LOOK)]))
    yield "absolute folder", message(EVENT, event("/alice", NEW, [change(LOOK)]))
    yield "folder with NUL", message(EVENT, event("ali\0ce", NEW, [change(LOOK)]))
    yield "folder too long", message(EVENT, event("a/" * 2000 + "b", NEW, [change(LOOK)]))
    yield "half 7", message(EVENT, event("alice", 7, [change(LOOK)]))
    yield "kind 99", message(EVENT, event("alice", NEW, [change(99, "x")]))
    yield "name with /", message(EVENT, event("alice", NEW, [change(ADD, "a/b")]))
    yield "name ..", message(EVENT, event("alice", NEW, [change(ADD, "..")]))
    yield "name with NUL", message(EVENT, event("alice", NEW, [change(ADD, "a\0b")]))
    yield "name too long", message(EVENT, event("alice", NEW, [change(ADD, "x" * 256)]))
    yield "too many changes", message(EVENT, event("alice", NEW, [change(LOOK)] * 129))
    yield "notify with NUL", message(NOTIFY, put_str("alice/new/a\0b"))
    yield "notify too long", message(NOTIFY, put_str("a/" * 5000))
    yield "notify cut short", message(NOTIFY, put_str("alice")[:-1])
    yield "status with more", message(STATUS, b"x")
    yield "scan without listing", message(SCAN, put_str("alice"), b"\0" * 150)
    yield "rebuild of too many", message(REBUILD, b"\0", struct.pack("<I", 2**31))
    yield "rebuild of nothing", message(REBUILD, b"\0", struct.pack("<I", 0))
    yield "hello twice", message(HELLO, bytes([ROLE_FS]), put_str("x"))


@pytest.fixture(scope="module", name="target")
def target_daemon():
    with Daemon() as d:
        d.maildir("alice", new=3, cur=5)
        d.start()
        with d.client() as c:
            assert c.rebuild()[0] == 0
        yield d


@pytest.mark.parametrize("data", [pytest.param(data, id=name.replace(" ", "-")) for name, data in garbage()])
def test_malformed_ends_its_connection_only(target, data):
    d = target
    before = (d.names("alice", NEW), d.names("alice", CUR), d.query("SELECT folder, half, need FROM half"))
    with d.client(ROLE_FS, "host") as bad, d.client() as c:
        refused = int(c.status()["events.refused"])
        bad.send(data)
        assert bad.error()
        while rest := bad.recv():
            assert rest[1] == FEED
        assert int(c.status()["events.refused"]) == refused + 1
        assert (d.names("alice", NEW), d.names("alice", CUR), d.query("SELECT folder, half, need FROM half")) == before


@pytest.mark.parametrize(
    "data",
    [
        message(STATUS, version=2),
        message(200, b"whatever"),
        message(NOTIFY, put_str("alice/../new/x")),
        message(NOTIFY, put_str("alice//new/x")),
    ],
)
def test_not_understood_goes_on(target, data):
    with target.client(ROLE_NOTIFY) as c:
        c.send(data)
        assert c.error()
        assert c.status()["maildexd.state"] == "ok"


def test_nothing_before_hello(target):
    with target.client(hello=False) as c:
        c.send(message(STATUS))
        assert "HELLO" in c.error()
        assert c.recv() == b""


def test_listing_that_lies(target):
    """The bytes of a handed-over listing are checked before anything is believed."""
    d = target
    for records in (b"x", struct.pack("<QBB", 1, 8, 4) + b"a/bc", struct.pack("<QBB", 1, 8, 200) + b"short"):
        with d.client(ROLE_FS, "host") as fs:
            fd = os.memfd_create("listing")
            os.write(fd, records)
            stamp = d.stamp("alice", CUR)
            head = message(
                SCAN,
                put_str("alice"),
                bytes([CUR]),
                struct.pack("<I", 1) + stamp.pack() + stamp.pack() + struct.pack("<qBBB", stamp[2] + 10**10, 0, 0, 0),
                struct.pack("<QQQ", 1, 0, len(records)),
            )
            socket.send_fds(fs.sock, [head], [fd])
            os.close(fd)
            assert "listing" in fs.error()
    assert len(d.names("alice", CUR)) == 5


def test_strangers_cannot_take_all_connections(target):
    held = []
    with as_uid(NOBODY):
        for _ in range(300):
            held.append(target.client(ROLE_NOTIFY, hello=False))
    with target.client() as c:
        s = until("them to be seen", lambda: int(c.status()["peers.other"]) >= 256 and c.status())
        assert int(s["peers.other"]) <= 257
    assert held[-1].recv()[1] == ERROR
    for h in held:
        h.close()
    with target.client() as c:
        until("them to be gone", lambda: c.status()["peers.other"] == "1")

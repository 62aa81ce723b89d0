# SPDX-License-Identifier: GPL-2.0-or-later
"""maildexfs and maildexd together: the index is loaded, kept, lost and damaged, either is away or killed; listings stay right."""

import os
import sqlite3
import time

import pytest

from daemon import CUR, NEW, standing_still
from faultfs import Faulty
from host import eventually, ls, touch

BIG = 3000


@pytest.fixture
def both(maildex):
    maildex.start()
    maildex.fs_start()
    connected(maildex)
    return maildex


def connected(m):
    eventually("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")


def indexed(m, folder="u", half=CUR):
    """Waits until the index holds exactly what is on disk, and knows that it does."""

    def right():
        row = m.row(folder, half)
        return row and not row["need"] and not row["unsettled"] and m.names(folder, half) == m.disk(folder, half)

    eventually("the index to be right", right)


def index_proven(m, n=BIG):
    names = m.fill("u", "cur", n)
    m.same("u/cur")
    m.proven("u/cur")
    indexed(m)
    return names


def test_first_opendir_fills_the_index(both):
    both.fill("u", "cur", 100)
    both.same("u/cur")
    eventually("a row", lambda: both.row("u", CUR) and both.names("u", CUR) == both.disk("u", CUR))


def test_restart_serves_from_the_index_without_a_listing(both):
    index_proven(both)
    both.fs_restart()
    connected(both)
    assert len(both.same("u/cur")) == BIG
    assert both.count("loads") == 1
    assert both.count("lower.listings") == 0


def test_index_follows_own_changes_without_a_listing(both):
    """A rename in a big half travels as an event with its window: the next start needs no listing either."""
    names = index_proven(both)
    with both.counting("lower.listings") as n:
        os.rename(both.up("u/cur", names[7]), both.up("u/cur", names[7] + "T"))
        os.unlink(both.up("u/cur", names[8]))
        both.same("u/cur")
    assert n["lower.listings"] == 0
    indexed(both)  # maildexd may have listed it at that moment, too, for what came before
    both.fs_restart()
    connected(both)
    row = both.row("u", CUR)
    both.same("u/cur")
    status = both.fs_status()
    assert both.count("lower.listings") == 0, (row, status)


def test_silent_change_while_away_is_seen(both):
    names = index_proven(both)
    both.fs_stop()
    os.rename(both.low("u/cur", names[0]), both.low("u/cur", names[0] + "T"))
    both.fs_start()
    both.same("u/cur")


@pytest.mark.parametrize("first", ["fs", "daemon"])
def test_either_first(maildex, first):
    maildex.fill("u", "cur", 50)
    if first == "daemon":
        maildex.start()
    maildex.fs_start()
    maildex.same("u/cur")
    if first == "fs":
        maildex.start()
    connected(maildex)
    maildex.same("u/cur")
    touch(maildex.up("u/cur/190.x:2,S"))
    maildex.same("u/cur")
    maildex.proven("u/cur")
    indexed(maildex)


def test_daemon_killed_and_back(both):
    names = index_proven(both, 300)
    both.kill()
    eventually("the loss to be noticed", lambda: both.fs_status()["maildexfs.maildexd"] == "away")
    for name in names[:20]:
        os.rename(both.up("u/cur", name), both.up("u/cur", name + "T"))
        both.same("u/cur")
    touch(both.low("u/cur/silent:2,"))
    both.same("u/cur")
    both.start()
    connected(both)
    both.same("u/cur")
    both.proven("u/cur")
    touch(both.up("u/cur/another:2,"))
    both.same("u/cur")
    both.proven("u/cur")
    indexed(both)


def test_fs_killed_its_rows_on_trust_are_listed_again(both):
    names = index_proven(both)
    os.rename(both.up("u/cur", names[0]), both.up("u/cur", names[0] + "T"))
    eventually("trust", lambda: both.row("u", CUR)["trust"])
    both.fs_kill()
    os.system(f"umount -l {both.mnt}")
    eventually("need after the gap", lambda: both.row("u", CUR)["need"])
    both.fs_start()
    both.same("u/cur")


def test_notify_reaches_a_live_folder(both):
    both.same("u/new")
    both.proven("u/new")
    both.deliver("u", "1700000009.M1P1.host")
    with both.client() as c:
        c.notify("u/new/1700000009.M1P1.host")
        both.idle(c)
    assert b"1700000009.M1P1.host" in both.same("u/new")
    eventually("the event to reach maildexfs", lambda: both.count("events.received") > 0)
    both.proven("u/new")
    indexed(both, half=NEW)


def test_doubled_and_lying_notifications_change_nothing(both):
    both.fill("u", "cur", 10)
    both.deliver("u", "1700000009.M1P1.host")
    both.proven("u/new")
    with both.client() as c:
        for _ in range(3):
            c.notify("u/new/1700000009.M1P1.host")
            c.notify("u/new/1700000010.nobody.delivered.this")
            c.notify("u/cur/1600000003.M3P1.host:2,S")
        both.idle(c)
    assert both.same("u/new") == {b"1700000009.M1P1.host"}
    assert len(both.same("u/cur")) == 10


def test_index_deleted_while_mounted(both):
    index_proven(both, 200)
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(both.index + suffix):
            os.unlink(both.index + suffix)
    touch(both.up("u/cur/x:2,"))
    both.same("u/cur")
    both.fs_restart()
    both.same("u/cur")
    both.proven("u/cur")
    eventually("a new index", lambda: os.path.exists(both.index))
    touch(both.up("u/cur/y:2,"))
    both.proven("u/cur")
    indexed(both)


def test_index_damaged_while_stopped(both):
    """A flipped bit in a name would be a phantom message: the row's checksum finds it."""
    names = index_proven(both)
    both.fs_stop()
    both.stop()
    db = sqlite3.connect(both.index)
    db.execute("UPDATE message SET name = ? WHERE name = ?", (os.fsencode(names[5])[:-1] + b"R", os.fsencode(names[5])))
    db.commit()
    db.close()
    both.start()
    both.fs_start()
    both.same("u/cur")
    both.proven("u/cur")
    indexed(both)


def test_index_is_rubbish(maildex):
    os.makedirs(os.path.dirname(maildex.index))
    with open(maildex.index, "wb") as f:
        f.write(os.urandom(50000))
    maildex.fill("u", "cur", 20)
    maildex.start()
    maildex.fs_start()
    connected(maildex)
    maildex.same("u/cur")
    maildex.proven("u/cur")
    indexed(maildex)


def test_folder_renamed_through_the_mount(both):
    both.maildir("u/.Old", cur=30)
    both.proven("u/.Old/cur")
    os.rename(both.up("u/.Old"), both.up("u/.Sent"))
    assert len(both.same("u/.Sent/cur")) == 30
    both.maildir("u/.Old", cur=3)
    assert len(both.same("u/.Old/cur")) == 3
    touch(both.up("u/.Sent/cur/new:2,"))
    both.same("u/.Sent/cur")
    both.proven("u/.Sent/cur")
    indexed(both, "u/.Sent")


def test_confirm_finds_what_a_silent_writer_hid_in_a_window(maildex):
    """The slip (C2) with real daemons: own renames without a pause, a silent writer between them; confirm repairs in the background."""
    maildex.conf.update(window_min=10, confirm="1s")
    maildex.start()
    maildex.fs_start()
    connected(maildex)
    names = index_proven(maildex, 100)
    for i in range(30):
        os.rename(maildex.up("u/cur", names[i]), maildex.up("u/cur", names[i] + "T"))
        if i % 3 == 0:
            touch(maildex.low(f"u/cur/silent{i}:2,"))
    eventually("the listing to be right again", lambda: ls(maildex.up("u/cur")) == ls(maildex.low("u/cur")))
    eventually("a confirmed listing", lambda: maildex.same("u/cur") and not maildex.row("u", CUR)["trust"])


def test_ten_thousand_in_new(both):
    """An abandoned POP box: slow once, never wrong."""
    both.fill("u", "new", 10000)
    assert len(both.same("u/new")) == 10000
    both.proven("u/new")
    with both.counting("lower.listings") as n:
        assert len(both.same("u/new")) == 10000
    assert n["lower.listings"] == 0


def test_own_change_that_the_index_lacks():
    """Within one second of a server that stamps whole seconds: the half leaves the memory, maildexd has not heard of the change
    yet, and the directory's stamp is what the index has."""
    with Faulty(faults={"tick_ms": 1000}, cache_bytes="1") as m:
        m.maildir("u", cur=5)
        m.maildir("v", cur=5)
        m.start()
        m.fs_start()
        connected(m)
        tried = 0
        while True:
            tried += 1
            second = int(time.time())
            name = f"18000{tried:05}.M1P1.host:2,"
            touch(m.there("u/cur", name))
            m.same("u/cur")
            eventually("the index to have it", lambda n=name: n in m.names("u", CUR))
            with standing_still(m.process):
                os.rename(m.up("u/cur", name), m.up("u/cur", name + "S"))
                ls(m.up("v/cur"))
                eventually("both to leave the memory", lambda: m.count("live.folders") == 0)
                m.same("u/cur")
            if int(time.time()) == second:
                break
            assert tried < 100, "never all in one second"

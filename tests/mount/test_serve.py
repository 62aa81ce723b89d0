# SPDX-License-Identifier: GPL-2.0-or-later
"""serve: index, lower and compare at run time, by the socket of maildexfs."""

import os
import sqlite3
import struct

import pytest

from daemon import ERROR, SERVE, message, put_str, xxh3_listing
from host import SERVE_COMPARE, SERVE_INDEX, SERVE_LOWER, Client, as_user, eventually, ls, touch


def test_asked_and_set(mounted):
    m = mounted
    assert m.serve() == {"*": "index"}
    assert m.serve(SERVE_LOWER) == {"*": "lower"} == m.serve()
    assert m.serve(SERVE_COMPARE, "u", "v/.Sub") == {"*": "lower", "u": "compare", "v/.Sub": "compare"} == m.serve()
    assert m.serve(SERVE_INDEX, "u") == {"*": "lower", "u": "index", "v/.Sub": "compare"}
    assert m.serve(SERVE_INDEX) == {"*": "index"} == m.serve()


@pytest.mark.parametrize(
    "paths", [struct.pack("<I", 1) + put_str("u") + b"more", struct.pack("<I", 2) + put_str("u"), struct.pack("<I", 2) + put_str("u") + put_str("/v")]
)  # fmt: skip
def test_a_malformed_request_sets_nothing(mounted, paths):
    with mounted.fs_client() as c:
        c.send(message(SERVE, bytes([1, SERVE_LOWER]), paths))
        c.expect(ERROR)
    assert mounted.serve() == {"*": "index"}


@pytest.mark.parametrize("word", ["index", "lower", "compare"])
def test_from_the_configuration(maildex, word):
    maildex.fs_start(serve=word)
    assert maildex.serve() == {"*": word}
    maildex.fill("u", "cur", 5)
    assert len(maildex.same("u/cur")) == 5


@pytest.mark.parametrize("mailbox", ["/etc", "../u", "u//v", "x" * 4000, "u/"])
def test_refuses_what_is_no_mailbox(mounted, mailbox):
    with pytest.raises(AssertionError, match="ERROR"):
        mounted.serve(SERVE_LOWER, mailbox)
    assert mounted.serve() == {"*": "index"}


def test_only_root_may_set(mounted):
    """Everybody may ask; a refused client changes nothing."""
    os.chmod(os.path.dirname(mounted.socket), 0o755)
    assert as_user(2001, mounted.serve) == {"*": "index"}
    with pytest.raises(AssertionError, match="root"):
        as_user(2001, lambda: mounted.serve(SERVE_LOWER))
    assert mounted.serve() == {"*": "index"}


def test_rubbish_ends_nothing(mounted):
    for data in (b"x", b"\1\7", b"\1\7\1\1\xff\xff\xff\xff", b"\1\x63", b"\2\5", b"\1\7\1\7\0\0\0\0"):
        with mounted.fs_client() as c:
            c.send(data)
            c.error()
            assert c.status()["maildexfs.state"] == "ok"
    assert mounted.serve() == {"*": "index"}


def test_many_connections(mounted):
    """At most so many; the next gets an answer that says so, and who goes makes room."""
    clients = [mounted.fs_client() for _ in range(15)]
    for c in clients:
        assert c.status()["maildexfs.state"] == "ok"
    more = [Client(mounted.socket + ".fs", hello=False) for _ in range(4)]
    assert any("too many" in c.error() for c in more[-1:])
    for c in clients + more:
        c.close()
    eventually("room", lambda: answers(mounted))


def answers(m):
    try:
        return m.fs_status()["maildexfs.state"] == "ok"
    except (AssertionError, OSError):
        return False


def test_lower_is_the_emergency_brake(mounted):
    """Nothing of the index is used: each opendir is a lower one, and mtimes are the server's."""
    m = mounted
    m.fill("u", "cur", 30)
    m.maildir("v", cur=4)
    m.same("u/cur")
    m.serve(SERVE_LOWER)
    with m.counting("opendirs", "lower.listings", "scans") as grown:
        for i in range(5):
            touch(m.low("u/cur", f"a{i}"))
            m.same("u/cur")
            touch(m.up("u/cur", f"b{i}"))
            m.same("u/cur")
            assert os.stat(m.up("u/cur")).st_mtime_ns == os.stat(m.low("u/cur")).st_mtime_ns
    assert grown == {"opendirs": 0, "lower.listings": 0, "scans": 0}
    m.serve(SERVE_INDEX, "u")
    with m.counting("opendirs") as grown:
        m.same("u/cur")
        m.same("v/cur")
    assert grown == {"opendirs": 1}


@pytest.mark.parametrize("mailboxes", [(), ("u",)])
def test_switched_while_messages_change(mounted, mailboxes):
    """Back and forth between all modes: what was done meanwhile is in the next listing."""
    m = mounted
    names = m.fill("u", "cur", 60)
    for i, n in enumerate(names):
        m.serve((SERVE_INDEX, SERVE_LOWER, SERVE_INDEX, SERVE_COMPARE)[i % 4], *mailboxes)
        os.rename(m.up("u/cur", n), m.up("u/cur", n + "T"))
        if i % 5 == 0:
            touch(m.low("u/cur", f"silent{i}"))
        m.same("u/cur")
    assert m.count("compare.differences") == 0


def test_open_listing_survives_the_switch(mounted):
    mounted.fill("u", "cur", 3000)
    with os.scandir(mounted.up("u/cur")) as it:
        first = next(it).name
        mounted.serve(SERVE_LOWER)
        rest = [e.name for e in it]
    assert len({first, *rest}) == 3000


def test_mode_follows_the_mailbox_s_folders(mounted):
    """A mailbox's mode is that of all below it, and of nothing whose name only begins like it."""
    m = mounted
    m.maildir("u/.Sub", cur=2)
    m.maildir("u2", cur=2)
    m.serve(SERVE_LOWER, "u")
    with m.counting("opendirs") as grown:
        m.same("u/cur")
        m.same("u/.Sub/cur")
    assert grown == {"opendirs": 0}
    with m.counting("opendirs") as grown:
        m.same("u2/cur")
    assert grown == {"opendirs": 1}


def test_root_is_a_mailbox_too(maildex):
    """The tree may be one Maildir; its path is empty, and all others are below it."""
    maildex.maildir("", cur=3)
    m = maildex.fs_start()
    m.serve(SERVE_LOWER, "")
    m.serve(SERVE_INDEX, "u")
    with m.counting("opendirs") as grown:
        assert len(m.same("cur")) == 3
        m.same("u/cur")
    assert grown == {"opendirs": 1}
    m.serve(SERVE_INDEX, "")
    with m.counting("opendirs") as grown:
        touch(m.up("cur/own"))
        assert len(m.same("cur")) == 4
    assert grown == {"opendirs": 1}


def test_compare_finds_nothing_where_all_is_right(maildex):
    m = maildex
    m.fs_start(serve="compare", window_min=20)
    names = m.fill("u", "cur", 60)
    m.same("u/cur")
    for i, n in enumerate(names):
        os.rename(m.up("u/cur", n), m.up("u/cur", n + "T"))
        if i % 4 == 0:
            os.unlink(m.up("u/cur", n + "T"))
        m.same("u/cur")
    for n in os.listdir(m.low("u/cur")):
        os.rename(m.low("u/cur", n), m.low("u/cur", n + "R"))
        m.same("u/cur")
    assert m.count("compare.done") > 0 and m.count("compare.differences") == 0
    assert "compare:" not in m.fs_logged()


@pytest.fixture(name="indexed")
def mounted_with_an_index(maildex):
    """Half u/cur is in the index, proven; maildexfs is not yet mounted."""
    maildex.fill("u", "cur", 30)
    maildex.start()
    with maildex.client() as c:
        eventually("a settled row", lambda: c.rebuild()[0] == 0 and not maildex.row("u", 1)["unsettled"])
    return maildex


def tamper(m, sql_names):
    """Changes the names of u/cur in the index, with count and checksum that fit."""
    db = sqlite3.connect(m.index, timeout=60)
    half = db.execute("SELECT id FROM half WHERE folder = ? AND half = 1", (b"u",)).fetchone()[0]
    for sql, *args in sql_names:
        assert db.execute(sql, (half, *args)).rowcount == 1
    rows = db.execute("SELECT name, ino FROM message WHERE half = ?", (half,)).fetchall()
    total = sum(xxh3_listing(os.fsdecode(n), ino) for n, ino in rows) % 2**64
    total -= 2**64 if total >= 2**63 else 0
    assert db.execute("UPDATE half SET count = ?, sum = ? WHERE id = ?", (len(rows), total, half)).rowcount == 1
    db.commit()
    db.close()


def test_compare_counts_and_logs_differences(indexed):
    """The real listing is served all the same."""
    m = indexed
    names = sorted(ls(m.low("u/cur")))
    tamper(
        m,
        [
            ("DELETE FROM message WHERE half = ? AND name = ?", names[0]),
            ("UPDATE message SET name = ?2 WHERE half = ?1 AND name = ?3", b"phantom\x1b", names[1]),
            ("UPDATE message SET ino = ino + 1 WHERE half = ? AND name = ?", names[2]),
        ],
    )
    m.fs_start(serve="compare")
    m.same("u/cur")
    status = m.fs_status()
    assert status["maildexfs.compare.done"] == "1" and status["maildexfs.compare.differences"] == "4"
    log = m.fs_logged()
    assert f"u/cur: only in the lower tree: {names[0].decode()}" in log
    assert f"u/cur: only in the lower tree: {names[1].decode()}" in log
    assert "u/cur: only in the index: phantom\\x1b" in log
    assert f"u/cur: another inode in the index: {names[2].decode()}" in log
    m.serve(SERVE_LOWER)
    m.same("u/cur")


def test_compare_logs_at_most_so_many(indexed):
    m = indexed
    tamper(m, [("DELETE FROM message WHERE half = ? AND name = ?", n) for n in sorted(ls(m.low("u/cur")))[:25]])
    m.fs_start(serve="compare")
    m.same("u/cur")
    assert m.count("compare.differences") == 25
    assert m.fs_logged().count("only in the lower tree") == 10

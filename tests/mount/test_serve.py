# SPDX-License-Identifier: GPL-2.0-or-later
"""serve index, lower and compare at run time: the emergency brake, per mailbox too, and what comparing finds."""

import os
import sqlite3

import pytest

from daemon import CUR
from support import SERVE_COMPARE, SERVE_INDEX, SERVE_LOWER, as_user, eventually, ls, touch


def test_modes_are_told(mounted):
    assert mounted.serve() == {"*": "index"}
    assert mounted.serve(SERVE_LOWER, "u/.Sent") == {"*": "index", "u/.Sent": "lower"}
    assert mounted.serve(SERVE_COMPARE) == {"*": "compare"}


@pytest.mark.parametrize("word, mode", [("lower", "lower"), ("compare", "compare"), ("index", "index")])
def test_the_file_says_how_to_start(maildex, word, mode):
    maildex.conf["serve"] = word
    maildex.fs_start()
    assert maildex.serve() == {"*": mode}


def test_lower_lists_the_lower_tree_each_time(mounted):
    mounted.fill("u", "cur", 50)
    mounted.proven("u/cur")
    mounted.serve(SERVE_LOWER)
    with mounted.counting("opendirs") as n:
        for i in range(5):
            touch(mounted.low(f"u/cur/s{i}:2,"))
            mounted.same("u/cur")
    assert n["opendirs"] == 0  # none was asked of a live folder
    assert os.stat(mounted.up("u/cur")).st_mtime_ns == os.stat(mounted.low("u/cur")).st_mtime_ns
    touch(mounted.up("u/cur/own:2,"))
    mounted.same("u/cur")
    mounted.serve(SERVE_INDEX)
    mounted.same("u/cur")
    with mounted.counting("opendirs") as n:
        mounted.same("u/cur")
    assert n["opendirs"] == 1


def test_one_mailbox_only(maildex):
    maildex.maildir("v", cur=5)
    maildex.maildir("u/.Sent", cur=5)
    maildex.fs_start()
    maildex.serve(SERVE_LOWER, "u")
    for folder, asked in (("u", 0), ("u/.Sent", 0), ("v", 1)):
        with maildex.counting("opendirs") as n:
            maildex.same(folder, "cur")
        assert n["opendirs"] == asked, folder


def test_an_open_listing_survives_the_switch(mounted):
    mounted.fill("u", "cur", 3000)
    with os.scandir(mounted.up("u/cur")) as it:
        first = next(it).name
        mounted.serve(SERVE_LOWER)
        rest = [e.name for e in it]
    assert len({first, *rest}) == 3000


def test_only_root_switches(mounted):
    def attempt():
        try:
            mounted.serve(SERVE_LOWER)
        except AssertionError as e:
            return str(e)
        return "accepted"

    assert "only root" in as_user(65534, attempt)
    assert mounted.serve() == {"*": "index"}


def test_bad_mailboxes_are_named(mounted):
    for bad in ("../x", "a//b", "/abs", "x" * 4000):
        with pytest.raises(AssertionError, match="ERROR"):
            mounted.serve(SERVE_LOWER, bad)
    assert mounted.serve() == {"*": "index"}


def test_compare_finds_nothing_where_all_is_right(mounted):
    mounted.serve(SERVE_COMPARE)
    names = mounted.fill("u", "cur", 200)
    for i in range(10):
        mounted.same("u/cur")
        os.rename(mounted.low("u/cur", names[i]), mounted.low("u/cur", names[i] + "T"))
        mounted.same("u/cur")
        touch(mounted.up(f"u/cur/own{i}:2,"))
        mounted.same("u/cur")
    eventually("a comparison", lambda: mounted.same("u/cur") and mounted.count("compare.done") > 0)
    assert mounted.count("compare.differences") == 0


def test_compare_counts_and_logs_each_difference(maildex):
    """An index that claims to be right and is not: one name too many, one missing, one with another inode; checksum and all."""
    from daemon import xxh3_listing

    names = maildex.fill("u", "cur", 100)
    maildex.start()
    maildex.fs_start()
    maildex.proven("u/cur")
    eventually("the index", lambda: maildex.row("u", CUR) and not maildex.row("u", CUR)["unsettled"])
    maildex.fs_stop()
    maildex.stop()
    db = sqlite3.connect(maildex.index)
    inode = maildex.disk("u", CUR)
    (half,) = db.execute("SELECT id FROM half WHERE half = ?", (CUR,)).fetchone()
    db.execute("DELETE FROM message WHERE half = ? AND name = ?", (half, os.fsencode(names[1])))
    db.execute("INSERT INTO message (half, name, ino, type) VALUES (?, ?, 7, 0)", (half, b"phantom:2,S"))
    db.execute("UPDATE message SET ino = ino + 1 WHERE half = ? AND name = ?", (half, os.fsencode(names[2])))
    total = sum(xxh3_listing(n, i) for n, i in inode.items()) - xxh3_listing(names[1], inode[names[1]])
    total += xxh3_listing("phantom:2,S", 7)
    total += xxh3_listing(names[2], inode[names[2]] + 1) - xxh3_listing(names[2], inode[names[2]])
    total %= 2**64
    db.execute("UPDATE half SET sum = ? WHERE id = ?", (total - 2**64 if total >= 2**63 else total, half))
    db.commit()
    db.close()
    maildex.conf["serve"] = "compare"
    maildex.fs_start()
    assert ls(maildex.up("u/cur")) == ls(maildex.low("u/cur"))  # the real listing is served
    assert maildex.count("compare.differences") == 3
    said = maildex.fs_logged()
    for what in ("only in the index: phantom:2,S", f"only in the lower tree: {names[1]}", f"another inode in the index: {names[2]}"):
        assert what in said

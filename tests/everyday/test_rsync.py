# SPDX-License-Identifier: GPL-2.0-or-later
"""rsync: mail is moved to another server with it, and backed up. rsync -a compares whole seconds of mtimes."""

import os

import pytest

from twin import EPOCH_NS, NS, age, assert_same, facts, fill

SYNC = ("rsync", "-aHAXS", "--itemize-changes")


@pytest.fixture
def source(twin):
    """A tree to copy from, outside of both."""
    top = os.path.join(twin.m.dir, "source")
    os.mkdir(top, 0o755)
    fill(top, 40, whole_seconds=False)
    return top


def again(twin, *argv):
    """The same once more does nothing: after a listing, nothing looks changed."""
    twin.proven()
    assert twin.run(*argv) == b""


def test_into_the_tree(twin, source):
    sync = (*SYNC, "--delete", source + "/", "./")
    out = twin.run(*sync)
    assert out.count(b"f+++++++++") > 60
    twin.same()
    again(twin, *sync)
    twin.same("all")
    assert_same(facts(source, "all"), facts(twin.mnt, "all"))


def test_changes_follow(twin, source):
    sync = (*SYNC, "--delete", source + "/", "./")
    twin.run(*sync)
    cur, new = (os.path.join(source, "u", h) for h in ("cur", "new"))
    for i, name in enumerate(sorted(os.listdir(cur))):
        if i % 4 == 0:
            os.unlink(os.path.join(cur, name))
        elif i % 4 == 1:
            os.rename(os.path.join(cur, name), os.path.join(cur, name.split(":")[0] + ":2,T"))
    for name in os.listdir(new)[:5]:
        os.rename(os.path.join(new, name), os.path.join(cur, name + ":2,"))
    with open(os.path.join(source, "p", "file07"), "ab") as f:
        f.write(b"more")
    os.rename(os.path.join(source, "u", ".Sent"), os.path.join(source, "u", ".Gone"))
    age(source, first_ns=EPOCH_NS + 3600 * NS)  # rsync would take times of this second for each other
    twin.proven()
    assert b"*deleting" in twin.run(*sync)
    twin.same()
    again(twin, *sync)
    twin.same("all")
    assert_same(facts(source, "all"), facts(twin.mnt, "all"))


def test_folder_times_in_whole_seconds(twin, source):
    """A half that was not listed since it changed shows an mtime older by less than a millisecond (rule 6). Where the
    time to be is a whole second, or that near behind one, that is another second: rsync -a sets the folder's time once
    more, and that is all that it does. After a listing there is nothing to do."""
    age(source, whole_seconds=True)
    sync = (*SYNC, source + "/", "./")
    twin.run(*sync)
    assert twin.run_in(twin.plain, *sync) == (0, b"", b"")
    code, out, err = twin.run_in(twin.mnt, *sync)
    halves = {f".d..t...... {h}/".encode() for h in twin.halves()}
    assert (code, err) == (0, b"") and set(out.splitlines()) == halves
    again(twin, *sync)
    twin.same("all")


def test_out_of_the_tree(twin):
    """A backup: the second one finds nothing to do, though nobody else had listed the folders before the first."""
    twin.fill()
    copy = os.path.join(twin.m.dir, "copy")
    for top in (twin.plain, twin.mnt):
        code, _, err = twin.run_in(top, *SYNC, "./", copy + "/")
        assert (code, err) == (0, b"")
        assert_same(facts(twin.low, "all"), facts(copy, "all"))
        assert twin.run_in(top, *SYNC, "./", copy + "/") == (0, b"", b"")
        assert twin.run_in(top, *SYNC, "--delete", "./", copy + "/") == (0, b"", b"")


def test_a_backup_by_links(twin):
    """--link-dest: what is unchanged becomes a hard link to the copy of yesterday; here all copies are on the mount."""
    twin.fill()
    for top in (twin.plain, twin.low):
        os.mkdir(os.path.join(top, "backup"))
    for day in ("1", "2"):
        code_out = twin.run(*SYNC, "--link-dest=../1/", "u", f"backup/{day}/")
        assert (b">f" in code_out) == (day == "1")
    twin.same("none")
    st = [os.stat(os.path.join(twin.mnt, "backup", d, "u", "dovecot-uidlist")) for d in "12"]
    assert st[0].st_ino == st[1].st_ino and st[0].st_nlink == 2


def test_in_place_and_partial(twin, source):
    """--inplace --append-verify writes into what is there."""
    twin.run("rsync", "-a", "--itemize-changes", source + "/p/", "./p/")
    with open(os.path.join(source, "p", "file19"), "ab") as f:
        f.write(b"y" * 100_000)
    for how in ("--append-verify", "--inplace"):
        twin.run("rsync", "-a", how, "--itemize-changes", source + "/p/", "./p/")
        twin.same("none", "p")


def test_messages_between_two_mailboxes_of_one_mount(twin):
    twin.fill()
    twin.run(*SYNC, "u/", "v/")
    twin.run(*SYNC, "--remove-source-files", "u/", "w/")
    twin.same("none")
    assert twin.run("find", "u", "-type", "f") == b""
    assert_same(facts(os.path.join(twin.plain, "v")), facts(os.path.join(twin.mnt, "w")))

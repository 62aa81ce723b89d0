# SPDX-License-Identifier: GPL-2.0-or-later
"""Rule 1: whoever changes the lower tree and tells nobody is noticed by the very next opendir. Names C1, C6, C9, C12 are
those of the model's counterexamples."""

import os
import shutil
import subprocess
import threading
import time
from errno import ENOENT

import pytest

from faultfs import Faulty
from host import base, eventually, ls, opened, getdents_all, refused, touch


def sh(m, text, *args):
    """A shell in the lower tree."""
    subprocess.run(["sh", "-ec", text, "sh", *args], cwd=m.root, check=True, stdout=subprocess.DEVNULL)


# What an administrator, a script or a delivery agent does; each leaves u/cur (and u/new) other than it was.
TOOLS = {
    "mv within cur": 'mv "u/cur/$1" "u/cur/$1T"',
    "mv new to cur": 'mv u/new/* u/cur/',
    "mv away": 'mv "u/cur/$1" u/tmp/',
    "rm": 'rm "u/cur/$1"',
    "rm all": "find u/cur -type f -delete",
    "cp -a": 'cp -a "u/cur/$1" u/cur/copy',
    "cp -a of a folder over it": "cp -a source/. u/cur/",
    "rsync -a": "rsync -a source/ u/cur/",
    "rsync -a --delete": "rsync -a --delete source/ u/cur/",
    "tar -x with old times": "tar -C source -cf t.tar . && tar -C u/cur -xf t.tar && rm t.tar",
    "delivery": ": > u/tmp/d && mv u/tmp/d u/new/1800000000.M1P1.host",
    "ln": 'ln "u/cur/$1" u/cur/hardlink',
    "mkdir": "mkdir u/cur/directory",
    "rename over": 'mv -f "u/cur/$1" "u/cur/$2"',
    "rename and back set times": 'mv "u/cur/$1" "u/cur/$1T" && touch -d @1000000000 u/cur',
    "add and times of long ago": ": > u/cur/added && touch -d @1 u/cur",
    "add and times of the future": ": > u/cur/added && touch -d @4000000000 u/cur",
    "swap": 'mv "u/cur/$1" u/tmp/x && mv "u/cur/$2" "u/cur/$1" && mv u/tmp/x "u/cur/$2"',
}


@pytest.mark.parametrize("window_min", [20, 100000])
@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_next_opendir_shows(maildex, tool, proven, window_min):
    maildex.maildir("u", new=3)
    maildex.maildir("source")
    shutil.rmtree(maildex.low("source"))
    os.mkdir(maildex.low("source"))
    for i in range(4):
        touch(maildex.low("source", f"15000{i:05}.M1P1.host:2,S"), b"old")
    os.utime(maildex.low("source"), (10**9, 10**9))
    names = maildex.fill("u", "cur", 40)
    maildex.fs_start(window_min=window_min)
    maildex.same("u/new")
    maildex.same("u/cur")
    if proven:
        maildex.proven("u/cur")
        os.rename(maildex.up("u/cur", names[9]), maildex.up("u/cur", names[9] + "T"))  # known raised by a window
        maildex.same("u/cur")
    sh(maildex, tool, names[3], names[4])
    maildex.same("u/cur")
    maildex.same("u/new")
    maildex.same("u/cur")


def test_between_two_own_changes(maildex):
    """C1: a silent change before an own one is not hidden by it."""
    maildex.fs_start(window_min=20)
    names = maildex.fill("u", "cur", 60)
    maildex.proven("u/cur")
    for i in range(20):
        touch(maildex.low("u/cur", f"silent{i}"))
        os.rename(maildex.up("u/cur", names[i]), maildex.up("u/cur", names[i] + "T"))
        maildex.same("u/cur")


def test_behind_an_own_change_whose_last_stamp_comes_late():
    """What others did until the server read it is not taken for our own: the window counts for 100 ms only."""
    with Faulty() as m:
        m.maildir("u")
        m.fs_start(window_min=20)
        names = m.fill("u", "cur", 60)
        m.proven("u/cur")
        for i in range(0, 8, 2):
            with m.faults.hold("getattr", "u/cur", nth=2) as held:  # the one before the change is the first
                os.rename(m.up("u/cur", names[i]), m.up("u/cur", names[i] + "T"))
                held.wait()
                time.sleep(0.15)
                os.unlink(m.there("u/cur", names[i + 1]))
            assert names[i + 1].encode() not in ls(m.up("u/cur"))
            m.proven("u/cur")


def test_ctime_tells_where_mtime_is_set_back(mounted):
    """C6: utimes exactly to the mtime that the listing stands for."""
    mounted.fill("u", "cur", 10)
    mounted.proven("u/cur")
    for i in range(10):
        before = os.stat(mounted.low("u/cur"))
        touch(mounted.low("u/cur", f"added{i}"))
        os.utime(mounted.low("u/cur"), ns=(before.st_atime_ns, before.st_mtime_ns))
        assert os.stat(mounted.low("u/cur")).st_mtime_ns == before.st_mtime_ns
        mounted.same("u/cur")


def test_two_changes_in_one_tick(mounted):
    """C9: the listing is read between two changes that share a stamp; right at the latest once the stamp is settled."""
    up, low = mounted.up("u/new"), mounted.low("u/new")
    for i in range(150):
        touch(os.path.join(low, f"a{i}"))
        ls(up)
        touch(os.path.join(low, f"b{i}"))
    eventually("the last change to be seen", lambda: ls(up) == ls(low))
    for i in range(20):
        touch(os.path.join(low, f"c{i}"))
        ls(up)
        touch(os.path.join(low, f"d{i}"))
        eventually("the change to be seen", lambda: ls(up) == ls(low))


def test_two_changes_in_one_tick_with_a_writer_racing(mounted):
    """The same where the second change may fall into the listing itself."""
    up, low = mounted.up("u/new"), mounted.low("u/new")
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            touch(os.path.join(low, f"w{i}"))
            if i >= 50:
                os.unlink(os.path.join(low, f"w{i - 50}"))
            i += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(200):
        ls(up)
    stop.set()
    writer.join()
    eventually("the last change to be seen", lambda: ls(up) == ls(low))


def test_two_changes_in_one_tick_after_a_step_back_that_another_folder_tells_of():
    """What was found settled by the clock as it was before the step is not settled."""
    second = 10**9
    with Faulty(faults={"tick_ms": 1000}) as m:
        m.maildir("u")
        m.maildir("v")
        m.fs_start()
        m.same("u/new")
        while not second // 50 < time.time_ns() % second < second // 5:  # files' times lag by some ms
            time.sleep(0.01)
        m.faults.clock(time.time_ns() // second * second, 3600 * second)
        touch(m.there("v/new/a"))
        m.same("v/new")  # an hour old, as far as anybody knows
        touch(m.there("u/new/x"))
        m.same("u/new")  # now the step is noticed
        touch(m.there("v/new/b"))
        m.same("v/new")
        touch(m.there("v/new/c"))
        eventually("the last change to be seen", lambda: ls(m.up("v/new")) == ls(m.low("v/new")))


def test_moved_between_two_opendirs(mounted):
    """C12: new, then cur, with a move by another host between the two: the message is in at least one."""
    for i in range(30):
        touch(mounted.low("u/new", f"17000{i:05}.M1P1.host"))
    mounted.proven("u/new")
    ls(mounted.up("u/cur"))
    for name in os.listdir(mounted.low("u/new")):
        new = ls(mounted.up("u/new"))
        os.rename(mounted.low("u/new", name), mounted.low("u/cur", name + ":2,"))
        cur = ls(mounted.up("u/cur"))
        assert os.fsencode(name) in new or os.fsencode(name + ":2,") in cur


def test_moved_while_both_are_read(mounted):
    """The same with a writer that moves all the time, both by handles opened new, cur and read new, cur."""
    names = {b"17000%05d.M1P1.host" % i for i in range(400)}
    for name in names:
        touch(os.path.join(os.fsencode(mounted.low("u/new")), name))
    stop = threading.Event()

    def move():
        for name in sorted(names):
            if stop.is_set():
                return
            new = os.path.join(os.fsencode(mounted.low("u/new")), name)
            os.rename(new, os.path.join(os.fsencode(mounted.low("u/cur")), name + b":2,"))

    mover = threading.Thread(target=move)
    mover.start()
    try:
        while mover.is_alive():
            with opened(mounted.up("u/new")) as fd:
                new = {e[3] for e in getdents_all(fd)}
            with opened(mounted.up("u/cur")) as fd:
                cur = [e[3] for e in getdents_all(fd)]
            assert len({base(n) for n in cur}) == len(cur)
            assert not names - new - {base(n) for n in cur}
    finally:
        stop.set()
        mover.join()
    assert not mounted.same("u/new")
    assert len(mounted.same("u/cur")) == 400


def test_flags_change_while_it_is_read(mounted):
    """C3: another host changes flags during scans: each message under one name, in each listing."""
    names = mounted.fill("u", "cur", 2000)
    bases = {base(os.fsencode(n)) for n in names}
    low = mounted.low("u/cur")
    stop = threading.Event()

    def flag():
        i, suffix = 0, "T"
        while not stop.is_set():
            n = names[i % 2000]
            os.rename(os.path.join(low, n), os.path.join(low, n.split(",")[0] + "," + suffix))
            names[i % 2000] = n.split(",")[0] + "," + suffix
            i += 1
            suffix = "ST"[i // 2000 % 2]

    writer = threading.Thread(target=flag)
    writer.start()
    try:
        for _ in range(40):
            seen = [base(n) for n in ls(mounted.up("u/cur"))]
            assert len(seen) == len(set(seen)) and set(seen) == bases
    finally:
        stop.set()
        writer.join()
    eventually("quiet", lambda: ls(mounted.up("u/cur")) == ls(low))


def test_removed_and_made_again(mounted):
    """A folder of the same name is another folder, whether its inode number is used again or not."""
    for i in range(8):
        mounted.maildir("u/.F", cur=5 + i, new=1)
        assert len(mounted.same("u/.F/cur")) == 5 + i
        mounted.same("u/.F/new")
        shutil.rmtree(mounted.low("u/.F"))
    refused(ENOENT, os.listdir, mounted.up("u/.F/cur"))
    os.mkdir(mounted.low("u/.F"))
    assert not ls(mounted.up("u/.F"))
    mounted.maildir("u/.F")
    assert not mounted.same("u/.F/cur")


def test_another_directory_under_the_name(mounted):
    """The old one lives on elsewhere: the kernel may go there for `revalidate`, as an NFS client does, and no longer."""
    mounted.maildir("u", cur=5)
    mounted.same("u/cur")
    os.rename(mounted.low("u/cur"), mounted.low("u/was"))
    os.mkdir(mounted.low("u/cur"))
    touch(mounted.low("u/cur/only"))
    assert len(mounted.same("u/was")) == 5
    eventually("the new directory to be seen", lambda: ls(mounted.up("u/cur")) == {b"only"})
    assert len(mounted.same("u/was")) == 5


def test_silent_change_inside_an_own_window_is_confirmed(maildex):
    """C2: in a big half a silent change in the gap of an own one may be hidden, until the half on trust is listed again."""
    maildex.fs_start(window_min=20, confirm="300ms")
    names = maildex.fill("u", "cur", 60)
    maildex.proven("u/cur")
    for n in names:
        os.rename(maildex.up("u/cur", n), maildex.up("u/cur", n + "T"))
        touch(maildex.low("u/cur", "silent" + n))
    eventually("the silent changes", lambda: ls(maildex.up("u/cur")) == ls(maildex.low("u/cur")))


def test_mailbox_renamed(mounted):
    mounted.maildir("u/.A", cur=5)
    mounted.maildir("u/.B", cur=9)
    mounted.same("u/.A/cur")
    mounted.same("u/.B/cur")
    os.rename(mounted.low("u/.A"), mounted.low("u/.C"))
    assert len(mounted.same("u/.C/cur")) == 5
    touch(mounted.up("u/.C/cur/own"))
    assert len(mounted.same("u/.C/cur")) == 6
    eventually("the old name to go", lambda: not os.path.exists(mounted.up("u/.A")))
    os.rename(mounted.low("u/.B"), mounted.low("u/.A"))
    assert len(mounted.same("u/.A/cur")) == 9
    os.rename(mounted.low("u"), mounted.low("w"))
    assert len(mounted.same("w/.A/cur")) == 9
    touch(mounted.low("w/.A/cur/silent"))
    touch(mounted.up("w/.A/cur/own"))
    assert len(mounted.same("w/.A/cur")) == 11

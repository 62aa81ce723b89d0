# SPDX-License-Identifier: GPL-2.0-or-later
"""Law 4, rule 6: Dovecot stats a half, compares the mtime with the one it stored, and skips the folder when it sees it
again. So an mtime shown with one listing is never shown with another."""

import os
import random
import threading

import pytest

from host import base, eventually, ls, opened, touch


class Dovecot:
    """A session: it stores the mtime that it saw before it read, and what it read."""

    def __init__(self, path):
        self.path, self.mtime, self.names = path, None, None

    def sync(self):
        mtime = os.stat(self.path).st_mtime_ns
        if mtime != self.mtime:
            self.names = ls(self.path)
            self.mtime = mtime
        return self.names


def change(m, rng, where):
    """One change of u/cur or u/new by one side."""
    at = m.low if where == "silent" else m.up
    half = rng.choice(["u/cur", "u/cur", "u/new"])
    names = os.listdir(m.low(half))
    what = rng.random()
    if what < 0.3 or len(names) < 40:
        touch(at(half, f"17{rng.randrange(10**8):08}.M{rng.randrange(10**6)}P1.host:2,"))
    elif what < 0.5:
        os.unlink(at(half, rng.choice(names)))
    else:
        name = rng.choice(names)
        to = at("u/cur", name.split(":")[0] + ":2," + "".join(sorted(rng.sample("DFPRST", 3))))
        os.rename(at(half, name), to)


@pytest.mark.parametrize("revalidate", ["0", "1s"])
@pytest.mark.parametrize("window_min", [20, 100000])
@pytest.mark.parametrize("writers", [("own",), ("silent",), ("own", "silent")])
def test_one_mtime_one_listing(maildex, writers, window_min, revalidate):
    """stat, list, stat: where both stats agree, this mtime was never seen with other names, and never will be."""
    # A silent change inside an own window (3.2) is found by the confirm scan; every other at the next opendir.
    slips = window_min == 20 and len(writers) == 2
    maildex.fs_start(window_min=window_min, revalidate=revalidate, confirm="300ms" if slips else "1h")
    maildex.maildir("u", new=45)
    maildex.fill("u", "cur", 60)
    rng = random.Random(repr((writers, window_min, revalidate)))
    seen = {"u/cur": {}, "u/new": {}}
    sessions = [Dovecot(maildex.up("u/cur")), Dovecot(maildex.up("u/new"))]
    for _ in range(250):
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            change(maildex, rng, rng.choice(writers))
        half = rng.choice(list(seen))
        if rng.random() < 0.3:
            rng.choice(sessions).sync()
        before = os.stat(maildex.up(half)).st_mtime_ns
        names = frozenset(ls(maildex.up(half)))
        after = os.stat(maildex.up(half)).st_mtime_ns
        assert slips or names == ls(maildex.low(half))
        if before == after:
            assert seen[half].setdefault(before, names) == names, f"{before} was shown with another listing"
    # Whatever the sessions stored meanwhile: soon they see all.
    for session, half in zip(sessions, ("u/cur", "u/new")):
        eventually("the session to see all", lambda s=session, h=half: s.sync() == ls(maildex.low(h)))


@pytest.mark.parametrize("window_min", [20, 100000])
def test_fstat_of_an_open_directory(maildex, window_min):
    """C14: opendir, change, fstat (the newer mtime), READDIR: the mtime must go with what is read."""
    maildex.fs_start(window_min=window_min, revalidate="0")
    names = maildex.fill("u", "cur", 60)
    maildex.proven("u/cur")
    stored = {}
    for i, name in enumerate(names):
        with opened(maildex.up("u/cur")) as fd:
            os.rename(maildex.up("u/cur", name), maildex.up("u/cur", name + "T"))
            if i % 2 and window_min > 20:
                touch(maildex.low("u/cur", f"silent{i}"))
            mtime = os.fstat(fd).st_mtime_ns
            got = frozenset(os.fsencode(n) for n in os.listdir(fd))
        assert stored.setdefault(mtime, got) == got
        again = os.stat(maildex.up("u/cur")).st_mtime_ns
        if again == mtime:
            assert got == ls(maildex.low("u/cur"))


@pytest.mark.parametrize("window_min", [20, 100000])
def test_sessions_beside_writers(maildex, window_min):
    """Sessions that sync all the time while two writers work: no message is lost to any of them."""
    maildex.fs_start(window_min=window_min, revalidate="0", confirm="300ms")
    maildex.fill("u", "cur", 60)
    stop = threading.Event()
    failures, sessions = [], [Dovecot(maildex.up("u/cur")) for _ in range(3)]

    def run(what):
        try:
            while not stop.is_set():
                what()
        except BaseException as e:  # pylint: disable=broad-except
            failures.append(e)

    def writer(at, prefix):
        count = iter(range(10**6))

        def step():
            i = next(count)
            name = at("u/cur", f"{prefix}{i}.M1P1.host:2,")
            touch(name)
            os.rename(name, name + "S")
            if i >= 100:  # else a slow machine drowns in the folder
                os.unlink(at("u/cur", f"{prefix}{i - 100}.M1P1.host:2,S"))

        return step

    threads = [threading.Thread(target=run, args=(s.sync,)) for s in sessions]
    threads += [threading.Thread(target=run, args=(writer(at, p),)) for at, p in ((maildex.up, "o"), (maildex.low, "s"))]
    for t in threads:
        t.start()
    for _ in range(60):
        ls(maildex.up("u/cur"))
    stop.set()
    for t in threads:
        t.join()
    assert not failures, failures[0]
    for s in sessions:
        eventually("the session to see all", lambda s=s: s.sync() == ls(maildex.low("u/cur")))
    assert all(len({base(n) for n in s.names}) == len(s.names) for s in sessions)


def test_own_change_is_shown_at_once(mounted):
    """However long two stats may share one reading: after an own change the mtime is another one."""
    names = mounted.fill("u", "cur", 30)
    mounted.proven("u/cur")
    shown = {os.stat(mounted.up("u/cur")).st_mtime_ns}
    for n in names:
        os.rename(mounted.up("u/cur", n), mounted.up("u/cur", n + "T"))
        mtime = os.stat(mounted.up("u/cur")).st_mtime_ns
        assert mtime not in shown
        shown.add(mtime)


def test_silent_change_is_shown_within_revalidate(maildex):
    maildex.fs_start(revalidate="200ms")
    maildex.maildir("u", cur=3)
    maildex.proven("u/cur")
    shown = os.stat(maildex.up("u/cur")).st_mtime_ns
    touch(maildex.low("u/cur/silent"))
    eventually("another mtime", lambda: os.stat(maildex.up("u/cur")).st_mtime_ns != shown)


@pytest.mark.parametrize("window_min", [1, 100000])
def test_proven_listing_shows_the_server_s_mtime(maildex, window_min):
    """Once quiet: equal to the lower one, so that other hosts, and this one after umount, see the same."""
    maildex.fs_start(window_min=window_min, confirm="300ms")
    maildex.maildir("u", cur=3, new=2)
    for half in ("u/cur", "u/new"):
        maildex.proven(half)
        touch(maildex.up(half, "own"))
        assert os.stat(maildex.up(half)).st_mtime_ns != os.stat(maildex.low(half)).st_mtime_ns
        maildex.proven(half)
        for field in ("st_mtime_ns", "st_ctime_ns", "st_ino", "st_nlink", "st_mode", "st_uid"):
            assert getattr(os.stat(maildex.up(half)), field) == getattr(os.stat(maildex.low(half)), field), field


def test_tag_is_less_than_a_millisecond(mounted):
    """Dovecot's list index compares whole seconds: what is shown stays near the server's own."""
    mounted.maildir("u", cur=3)
    for i in range(20):
        touch(mounted.low("u/cur", f"silent{i}"))
        mounted.same("u/cur")
        lower = os.stat(mounted.low("u/cur")).st_mtime_ns
        assert 0 <= lower - os.stat(mounted.up("u/cur")).st_mtime_ns <= 10**6


def test_times_that_a_caller_sets(mounted):
    """utime on a half through the mount is shown at once."""
    mounted.maildir("u", cur=3)
    mounted.proven("u/cur")
    for ns in (10**18 + 7, 1234567890 * 10**9, 2 * 10**18):
        os.utime(mounted.up("u/cur"), ns=(ns, ns))
        assert 0 <= ns - os.stat(mounted.up("u/cur")).st_mtime_ns <= 10**6
        assert os.stat(mounted.low("u/cur")).st_mtime_ns == ns
        mounted.same("u/cur")
    os.chmod(mounted.up("u/cur"), 0o750)
    assert os.stat(mounted.up("u/cur")).st_mode == os.stat(mounted.low("u/cur")).st_mode
    mounted.proven("u/cur")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Push: what happened elsewhere in a folder that somebody watches through the mount makes real events of inotify there,
by a name that maildexfs makes and removes and that nobody finds anywhere else."""

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import threading
import time
from errno import ECONNABORTED, ENOTCONN

import pytest

from daemon import BUILD, NEW, WAIT_S, until
from faultfs import Faulty
from host import SERVE_LOWER, Maildex, as_user, libc, ls, touch

NOTIFY = os.path.abspath(os.path.join(BUILD, "maildex-notify"))
CTL = os.path.abspath(os.path.join(BUILD, "maildexctl"))
IN_MODIFY, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x4, 0x40, 0x80, 0x100, 0x200
IN_CHANGES = IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
PREFIX = b".maildex-ring."


class Watch:
    """What inotify tells of one directory, read as it comes: (seconds, mask, name)."""

    def __init__(self, path, mask=IN_CHANGES):
        self.fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        assert libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask)) >= 0, path
        self.events, self.stop = [], False
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        os.close(self.fd)

    def _read(self):
        while not self.stop:
            if not select.select([self.fd], [], [], 0.05)[0]:
                continue
            now, data, at = time.monotonic(), os.read(self.fd, 65536), 0
            while at < len(data):
                _, mask, _, size = struct.unpack_from("=iIII", data, at)
                self.events.append((now, mask, data[at + 16 : at + 16 + size].split(b"\0")[0]))
                at += 16 + size

    def rings(self):
        """When each came; every name that was made was removed, and nothing else happened to it."""
        ours = [e for e in self.events if e[2].startswith(PREFIX)]
        assert [e[1] for e in ours] == ([IN_CREATE, IN_DELETE] * len(ours))[: len(ours)], ours
        return [e[0] for e in ours if e[1] == IN_DELETE]

    def name(self):
        return next(e[2] for e in self.events if e[2].startswith(PREFIX))

    def others(self):
        return [e[1:] for e in self.events if not e[2].startswith(PREFIX)]

    def rung(self, n=1):
        return until(f"ring {n}", lambda: len(self.rings()) >= n and self.rings())


def connected(m):
    until("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")


def watching(m):
    """Waits until inotify tells maildexd of all that arrives."""

    def state():
        with m.client() as c:
            return c.status()["inotify.state"]

    until("all to be watched", lambda: state() == "watching")
    return m


def tell(m, *paths):
    m.command()
    done = subprocess.run(
        [NOTIFY, "-c", os.path.join(m.dir, "maildex.conf"), "--strict", *paths],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done


def verify(m):
    done = subprocess.run(
        [CTL, "-c", os.path.join(m.dir, "maildex.conf"), "verify", "--all"],
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done


@contextlib.contextmanager
def running(**conf):
    with Maildex(**conf) as m:
        for folder in ("u", "v"):
            m.maildir(folder, new=2, cur=2)
        m.start()
        m.fs_start()
        connected(m)
        yield m


@pytest.fixture
def both():
    with running() as m:
        yield m


def quiet(m, watch, rings, folder="v", most=None):
    """Nothing rings any more for what was done before: a ring elsewhere came, and the quiet second passed twice."""
    with Watch(m.up(folder, "new")) as other:
        m.deliver(folder, f"18000{time.monotonic_ns()}.M1P1.host")
        tell(m, m.up(folder, "new"))
        other.rung()
    end = time.monotonic() + 2.2
    until("two seconds", lambda: time.monotonic() > end)
    assert rings <= len(watch.rings()) <= (most or rings), watch.events


@pytest.mark.parametrize("known", ["listed", "only watched", "indexed, only watched", "served from below"])
@pytest.mark.parametrize("path", ["u/new/1800000000.M1P1.host", "u/new", "u"])
def test_hook_rings(both, path, known):
    if known == "listed":
        both.same("u/new")
    if known.startswith("indexed"):
        with both.client() as c:
            assert c.rebuild()[0] == 0
    if known.endswith("below"):
        both.serve(SERVE_LOWER)
    with Watch(both.up("u/new")) as w, Watch(both.up("u/cur")) as cur, Watch(both.low("u/new")) as low:
        both.deliver("u", "1800000000.M1P1.host")
        before = len(low.events)
        tell(both, both.up(path))
        w.rung()
        assert b"1800000000.M1P1.host" in both.same("u/new")
        assert not w.others() and not cur.events
        assert len(low.events) == before or {e[2] for e in low.events} == {b"1800000000.M1P1.host"}
    assert both.count("rings.failed") == 0


def test_rings_in_the_half_that_changed(both):
    """Another host's server gives a message a flag; one removes it."""
    both.same("u/cur")
    name = sorted(os.listdir(both.low("u/cur")))[0]
    with Watch(both.up("u/new")) as new, Watch(both.up("u/cur")) as cur:
        os.rename(both.low("u/cur", name), both.low("u/cur", name + "T"))
        tell(both, both.up("u/cur", name + "T"))
        cur.rung(1)
        os.unlink(both.low("u/cur", name + "T"))
        tell(both, both.up("u/cur"))
        cur.rung(2)
        assert not new.events


def test_nobody_knows_the_folder(both):
    """Neither listed nor looked at since the mount: nothing is done."""
    both.deliver("u", "1800000000.M1P1.host")
    tell(both, both.low("u/new/1800000000.M1P1.host"))
    until("the event", lambda: both.count("events.received") > 0)
    with Watch(both.up("v/new")) as w:
        both.deliver("v", "1800000000.M1P1.host")
        tell(both, both.low("v"))
        w.rung()
        assert both.count("rings.done") == len(w.rings())


@pytest.mark.parametrize("known", ["listed", "only watched"])
def test_own_changes_ring_once(both, known):
    """They made their events already; told of by a hook as well, they ring no more."""
    if known == "listed":
        both.same("u/new")
    with Watch(both.up("u/new")) as w:
        touch(both.up("u/tmp/1800000000.M1P1.host"))
        os.rename(both.up("u/tmp/1800000000.M1P1.host"), both.up("u/new/1800000000.M1P1.host"))
        tell(both, both.up("u/new/1800000000.M1P1.host"))
        os.rename(both.up("u/new/1800000000.M1P1.host"), both.up("u/new/1800000001.M1P1.host"))
        tell(both, both.up("u/new/1800000001.M1P1.host"))
        os.unlink(both.up("u/new/1800000001.M1P1.host"))
        quiet(both, w, 0)
        assert [e[0] for e in w.others()] == [IN_MOVED_TO, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE]


@pytest.mark.parametrize("known", ["listed", "only watched"])
def test_silent_delivery_seen_by_inotify(known):
    with running(watch="inotify") as m:
        watching(m)
        if known == "listed":
            m.same("u/new")
        with Watch(m.up("u/new")) as w:
            touch(m.low("u/tmp/1800000000.M1P1.host"))
            os.rename(m.low("u/tmp/1800000000.M1P1.host"), m.low("u/new/1800000000.M1P1.host"))
            w.rung()
            assert b"1800000000.M1P1.host" in m.same("u/new")
            quiet(m, w, 1)


@pytest.mark.parametrize("known", ["listed", "only watched"])
def test_own_deliveries_that_inotify_sees_too(known):
    with running(watch="inotify") as m:
        watching(m)
        if known == "listed":
            m.same("u/new")
        with Watch(m.up("u/new")) as w:
            for i in range(5):
                touch(m.up(f"u/tmp/1800000000.M{i}P1.host"))
                os.rename(m.up(f"u/tmp/1800000000.M{i}P1.host"), m.up(f"u/new/1800000000.M{i}P1.host"))
            # Of a half that is not in memory the echo can be heard before the own change has returned: it rings once
            # without need. If echoes were not known as such, there would be one more, after the quiet second.
            quiet(m, w, 0, most=0 if known == "listed" else 1)
            assert [e[0] for e in w.others()] == [IN_MOVED_TO] * 5


def test_at_most_once_a_second_and_after_the_last(both):
    both.same("u/new")
    with Watch(both.up("u/new")) as w, both.client() as c:
        start = time.monotonic()
        for i in range(100):
            both.deliver("u", f"1800000000.M{i}P1.host")
            last = time.monotonic()
            c.notify(f"u/new/1800000000.M{i}P1.host")
        until("a ring after the last", lambda: w.rings() and w.rings()[-1] > last)
        quiet(both, w, len(w.rings()))
        assert len(w.rings()) <= (w.rings()[-1] - start) + 1
        assert len(both.same("u/new")) == 102


def test_what_another_opening_found_rings(maildex):
    """A silent writer, and not even maildexd: who idles is told when anybody finds the mail."""
    maildex.fs_start()
    maildex.same("u/new")
    with Watch(maildex.up("u/new")) as w:
        touch(maildex.low("u/new/1800000000.M1P1.host"))
        maildex.same("u/new")
        w.rung()
        maildex.same("u/new")
        maildex.proven("u/new")
        end = time.monotonic() + 1.5
        until("more than a second", lambda: maildex.same("u/new") and time.monotonic() > end)
        assert len(w.rings()) == 1
    assert maildex.count("rings.done") == 1


class Busy:
    """Threads that repeat something until the block ends; what they raise is raised at its end."""

    def __init__(self, *tasks):
        self.stop, self.error, self.rounds = False, None, [0] * len(tasks)
        self.threads = [threading.Thread(target=self._run, args=(i, t)) for i, t in enumerate(tasks)]

    def _run(self, i, task):
        try:
            while not self.stop:
                task(self.rounds[i])
                self.rounds[i] += 1
        except BaseException as e:  # pylint: disable=broad-except
            self.error = e

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, kind, *_):
        self.stop = True
        for t in self.threads:
            t.join()
        if self.error and not kind:
            raise self.error


def test_name_is_nowhere(both):
    """While rings come: not in listings, not for who looks for it, not in the lower tree, not in the index."""
    both.serve(SERVE_LOWER, "v")

    def listing(folder):
        def names(_):
            assert not [n for n in ls(both.up(folder)) if n.startswith(b".")]

        return names

    with Watch(both.up("u/new")) as w, Watch(both.up("v/new")) as v, both.client() as c:
        with Watch(both.low("u/new")) as low, Watch(both.low("v/new")) as vlow:
            both.deliver("u", "1800000000.M1P1.host")
            c.notify("u")
            w.rung()
            name = w.name()

            def look(_):
                for path in (both.up("u/new"), both.up("v/new")):
                    assert not os.path.lexists(os.path.join(os.fsencode(path), name))

            def deliver(n):
                for folder in ("u", "v"):
                    both.deliver(folder, f"1900000000.M{n}P1.host")
                    c.notify(f"{folder}/new/1900000000.M{n}P1.host")

            with Busy(look, look, listing("u/new"), listing("v/new"), deliver) as busy:
                w.rung(4)
                v.rung(4)
            assert all(busy.rounds)
            assert not [e for e in low.events + vlow.events if e[2].startswith(b".")]
        both.idle(c)
    assert b"." not in {n[:1] for n in both.same("u/new") | both.same("v/new")}
    assert not [n for n in both.names("u", NEW) if n.startswith(".")]
    verify(both)
    assert both.count("rings.failed") == 0


def test_name_is_anybody_elses_too(both):
    """Who uses the very name for a file of his own has that file."""
    with Watch(both.up("u/new")) as w:
        tell(both, both.up("u"))
        w.rung()
        name = w.name().decode()
    path = both.up("u/new", name)
    with open(path, "xb") as f:
        f.write(b"mine")
    assert os.stat(path).st_ino == os.stat(both.low("u/new", name)).st_ino
    tell(both, both.up("u"))
    until("another ring", lambda: both.count("rings.done") > 1)
    with open(both.low("u/new", name), "rb") as f:
        assert f.read() == b"mine"
    os.unlink(path)
    assert not os.path.lexists(both.low("u/new", name))


@pytest.mark.parametrize("mode", [0o700, 0o500, 0o000])
def test_maildir_of_somebody(both, mode):
    """Neither its owner's rights nor root's matter."""
    both.maildir("w/Maildir", new=1, uid=2345)
    os.chmod(both.low("w/Maildir/new"), mode)
    with Watch(both.up("w/Maildir/new")) as w:
        both.deliver("w/Maildir", "1800000000.M1P1.host")
        tell(both, both.up("w/Maildir"))
        w.rung()
    os.chmod(both.low("w/Maildir/new"), 0o700)
    assert as_user(2345, lambda: len(os.listdir(both.up("w/Maildir/new")))) == 2


@pytest.mark.parametrize("end", ["umount", "SIGTERM"])
def test_unmount_while_it_rings(end):
    """A ring holds nothing that would make the mount busy, and none is left behind."""
    folders = [f"f{i}" for i in range(40)]
    with Maildex() as m:
        for f in folders:
            m.maildir(f)
        m.start()
        for _ in range(5):
            m.fs_start()
            connected(m)
            for f in folders:
                os.stat(m.up(f, "new"))
            with m.client() as c, Busy(lambda n: c.notify(folders[n % len(folders)]) or time.sleep(0.001)):
                until("rings", lambda: m.count("rings.done") > len(folders) + 10)
                if end == "umount":
                    m.fs_stop()
                else:
                    m.fs.terminate()
                    m._fs_ended()  # pylint: disable=protected-access
        assert not [n for f in folders for n in os.listdir(m.low(f, "new"))]


def test_mount_is_root():
    with Maildex() as m:
        m.conf["mount"] = m.root
        m.maildir("u", new=1)
        m.start()
        m.fs_start()
        connected(m)
        below = os.path.join(m.dir, "run", "lower", "u", "new")
        m.client().close()
        ls(m.up("u/new"))
        with Watch(m.up("u/new")) as w, Watch(below) as low:
            touch(os.path.join(below, "1800000000.M1P1.host"))
            tell(m, m.up("u/new/1800000000.M1P1.host"))
            w.rung()
            assert not w.others()
            assert {e[2] for e in low.events} == {b"1800000000.M1P1.host"}
        assert len(ls(m.up("u/new"))) == 2
        m.fs_stop()
        assert len(os.listdir(m.root + "/u/new")) == 2


def test_maildexd_killed_in_between(both):
    both.same("u/new")
    with Watch(both.up("u/new")) as w:
        for i in range(1, 4):
            both.deliver("u", f"1800000000.M{i}P1.host")
            tell(both, both.up(f"u/new/1800000000.M{i}P1.host"))
            w.rung(i)
            both.kill()
            until("maildexd to be missed", lambda: both.fs_status()["maildexfs.maildexd"] == "away")
            both.start()
            connected(both)
    assert len(both.same("u/new")) == 5


def mount(*args):
    # With the new system calls util-linux hands all options of a mount in again, which FUSE refuses.
    env = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
    subprocess.run(["mount", *args], check=True, timeout=WAIT_S, env=env)


def test_read_only(both):
    """Said once."""
    with Watch(both.up("u/new")) as w:
        mount("-i", "-o", "remount,ro", both.mnt)
        for i in range(1, 3):
            tell(both, both.up("u"))
            until("a failed ring", lambda n=i: both.count("rings.failed") >= n)
        assert both.fs_logged().count("is mounted read-only") == 1
        mount("-i", "-o", "remount,rw", both.mnt)
        tell(both, both.up("u"))
        w.rung()


def test_another_filesystem_over_the_mount_point(both):
    """Nothing is made there."""
    with Watch(both.up("u/new")) as w:
        mount("-t", "tmpfs", "maildex-test", both.mnt)
        os.makedirs(both.up("u/new"))
        with Watch(both.up("u/new")) as other:
            tell(both, both.low("u"))
            until("a failed ring", lambda: both.count("rings.failed") > 0)
            subprocess.run(["umount", both.mnt], check=True, timeout=WAIT_S)
            assert not [e for e in other.events if e[2]]
        tell(both, both.low("u"))
        w.rung()


def test_mount_that_cannot_be_cloned(both):
    mount("--make-unbindable", both.mnt)
    with Watch(both.up("u/new")) as w:
        tell(both, both.low("u"))
        w.rung()


def test_folder_is_renamed_through_the_mount(both):
    both.same("u/new")
    with Watch(both.up("u/new")) as w:
        os.rename(both.up("u"), both.up("w"))
        both.deliver("w", "1800000000.M1P1.host")
        tell(both, both.up("w/new/1800000000.M1P1.host"))
        w.rung()
    assert both.count("rings.failed") == 0


def test_killed_while_a_ring_waits_for_a_caller(processes):
    """A thread that makes an event waits for the directory, which the kernel has locked for a caller that hangs. Both end
    with maildexfs, without help."""
    mknodat = "259"
    with Faulty() as m:
        m.maildir("u", new=2, cur=2)
        m.start()
        m.fs_start()
        connected(m)
        caller = processes()
        with Watch(m.up("u/new")):
            with m.faults.hold("create", "u/new/*") as held:
                caller.begin(touch, m.up("u/new/1800000000.M1P1.host"))
                held.wait()
                tell(m, m.up("u/new"))
                until("a ring to wait", lambda: m.fs_within(mknodat))
                fs, m.fs = m.fs, None
                fs.kill()
            assert fs.wait(WAIT_S) == -signal.SIGKILL
            with pytest.raises(OSError) as e:
                caller.end()
            assert e.value.errno in (ECONNABORTED, ENOTCONN)

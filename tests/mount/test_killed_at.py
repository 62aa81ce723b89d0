# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 at each point: of maildexfs in the middle of each call that it makes below, of maildexd before each of its writes
and syncs of the index. Beside test_kills.py (at random): of those points these tests leave out none, with MAILDEX_KILLS=500."""

import os
import signal
import subprocess
import threading

import pytest

from daemon import BUILD, WAIT_S, until
from faultfs import Faulty
from host import CUT_OFF, acting_as, touch
from owner import BOXES, OWNER, Owner, calls

ALL = int(os.environ.get("MAILDEX_KILLS", "25")) > 100
EVERY = 1 if ALL else 9  # call
STEP = 1 if ALL else 7  # writes
ENOUGH = 3  # lives in a row that were not cut short: some take a write more than others
KILLAT = os.path.abspath(os.path.join(BUILD, "killat.so"))

pytestmark = pytest.mark.skipif(not BUILD.endswith("gcc"), reason="a preloaded library has to come before a sanitizer's; minutes")


class Supervisor:
    """What the unit does: ExecStopPost=umount -l, Restart=always."""

    def __init__(self, m):
        self.m, self.thread, self.failed = m, None, None

    def kill(self):
        """While one of its calls is held: that is carried out all the same."""
        fs, self.m.fs = self.m.fs, None
        fs.kill()
        self.thread = threading.Thread(target=self.restart, args=(fs,))
        self.thread.start()

    def restart(self, fs):
        try:
            fs.wait(WAIT_S)
            subprocess.run(["umount", "-l", self.m.up()], check=True, timeout=WAIT_S)
            self.m.fs_start()
        except BaseException as e:  # pylint: disable=broad-except
            self.failed = e

    def join(self):
        """Returns whether there was a kill."""
        if not self.thread:
            return False
        self.thread.join(WAIT_S)
        assert self.m.fs and not self.failed, self.failed
        return True


def killed_in(m, kind, n):
    """A day in which maildexfs is killed in its nth call of that kind, and what follows. Returns whether it was."""
    owner, supervisor = Owner(m, BOXES.next(), CUT_OFF), Supervisor(m)
    with acting_as(OWNER):
        owner.make_mailbox()
    with m.faults.between(kind, owner.box + "*", supervisor.kill, nth=n), acting_as(OWNER):
        owner.lives()
    killed = supervisor.join()
    owner.allowed = ()
    with acting_as(OWNER):
        owner.goes_on()
    return killed


def test_maildexfs_is_killed_in_each_call(figures):
    with Faulty(faults={"attr_ms": 3000, "entry_ms": 1000}, window_min=1, revalidate="1ms") as m:
        m.conf["mount"] = m.root
        os.chmod(m.made, 0o777)
        m.start()
        m.fs_start()
        made, kills = calls(m), 0
        points = [(kind, n) for kind in sorted(made) for n in range(1, made[kind] + 1)]
        for kind, n in points[::EVERY]:
            kills += killed_in(m, kind, n)
    figures({"points": len(points), "kills": kills})
    assert kills > len(points) // EVERY // 2  # a call less or more in a day


def start_killed(m, n):
    """maildexd ends itself just before its nth write to the index, which may be before it is ready."""
    plain = m.environment
    m.environment = lambda: {**plain(), "LD_PRELOAD": KILLAT, "MAILDEX_KILL_PATH": "index.sqlite", "MAILDEX_KILL_AT": str(n)}
    try:
        m.start()
    except AssertionError:
        assert m.process.wait(WAIT_S) == -signal.SIGKILL, m.logged()
        os.unlink(os.path.join(m.dir, "notify"))
    finally:
        m.environment = plain


def script(m, n):
    """A delivery, a login, a flag and an expunge; each is seen at once, whatever becomes of maildexd meanwhile."""
    name = f"18{n:08}.M{n}P1.host"
    touch(m.up("u/tmp", name))
    for old, new in ((f"tmp/{name}", f"new/{name}"), (f"new/{name}", f"cur/{name}:2,"), (f"cur/{name}:2,", f"cur/{name}:2,S")):
        os.rename(m.up("u", old), m.up("u", new))
        m.same("u/new")
        m.same("u/cur")
    os.unlink(m.up("u/cur", min(os.listdir(m.up("u/cur")))))
    m.same("u/cur")


def verified(m):
    """The index is right. What maildexd was not told of while it was away it learns with the next change."""
    for half in ("new", "cur"):
        touch(m.up("u", half, "1900000000.M1P9.host"))
        os.unlink(m.up("u", half, "1900000000.M1P9.host"))
        m.same("u", half)
    verify = [os.path.join(BUILD, "maildexctl"), "-c", m.command()[2], "verify", "--all"]
    return subprocess.run(verify, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def ended(m):
    """Returns whether it was killed, before or by its end."""
    process, m.process = m.process, None
    process.terminate()
    code = process.wait(WAIT_S)
    assert code in (0, -signal.SIGKILL), m.logged()
    return code != 0


def test_maildexd_is_killed_before_each_write(maildex, figures):
    m, n, kills, lived = maildex, 0, 0, 0
    m.conf["window_min"] = 3
    m.fill("u", "cur", 6)
    m.start()
    m.fs_start()
    while lived < ENOUGH:
        n += STEP
        m.stop()
        start_killed(m, n)
        dead = m.process.poll
        until("maildexd to be there, or dead", lambda: dead() is not None or m.fs_status()["maildexfs.maildexd"] == "connected")
        script(m, n)
        until("maildexd to have written it all, or to be dead", lambda: dead() is not None or verified(m))
        if ended(m):
            kills, lived = kills + 1, 0
        else:
            lived += 1
        m.start()
        until("the index to be right", lambda: verified(m))
    figures({"kills": kills, "writes": n - STEP * ENOUGH})
    assert kills >= 20 // STEP  # else it is not maildexd's writes that are counted

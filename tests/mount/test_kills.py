# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of either program while sessions work, again and again (MAILDEX_KILLS times), and what a supervisor does then:
umount -l, and start it anew. The plain tree is under the same path in between; each session finds out what became of the
call that it was in. No message is lost, each listing is right at once, the index is right again by itself."""

import os
import random
import statistics
import subprocess
import threading
import time
from errno import ENOENT

import pytest

from daemon import BUILD, WAIT_S, until
from host import CUT_OFF, SERVE_LOWER, base, getdents, getdents_all, ls, mounts_below, opened, touch

KILLS = int(os.environ.get("MAILDEX_KILLS", "25" if BUILD.endswith("gcc") else "6"))
SESSIONS = 3


class Session(threading.Thread):
    """Has messages of its own. self.at: where each is, as told: {base: half/name}. windows: a call of its own that began in
    the plain tree, between two mounts, is a silent change in the moment of another's: see "The exceptions"."""

    def __init__(self, m, number, windows):
        super().__init__()
        self.m, self.number, self.windows, self.done = m, number, windows, 0
        self.random = random.Random(number)
        self.at, self.made, self.wrong = {}, 0, None
        self.go, self.paused, self.over = threading.Event(), threading.Event(), False
        self.go.set()

    def run(self):
        try:
            while not self.over:
                if not self.go.is_set():
                    self.paused.set()
                    self.go.wait()
                    self.paused.clear()
                self.step()
                self.done += 1
        except BaseException as e:  # pylint: disable=broad-except
            self.wrong = e
            self.paused.set()

    def pause(self):
        self.go.clear()
        assert self.paused.wait(WAIT_S) and not self.wrong, self.wrong

    def step(self):
        if len(self.at) < 5:
            self.deliver()
        else:
            self.random.choice([self.deliver, self.move, self.move, self.expunge, self.look])()

    def path(self, where):
        return self.m.up("u", where)

    def try_to(self, what, *paths):
        """Returns whether it was told to be done; None: cut off."""
        try:
            what(*(self.path(p) for p in paths))
        except OSError as e:
            if e.errno == ENOENT:
                return False
            if e.errno not in CUT_OFF:
                raise
            return None
        return True

    def whereabouts(self, name):
        """Where a message is, when the call was cut off: below, which nobody else changes."""
        halves = {half: os.listdir(self.m.below(f"u/{half}")) for half in ("tmp", "new", "cur")}
        return [f"{half}/{n}" for half, names in halves.items() for n in names if n.split(":")[0] == name]

    def deliver(self):
        self.made += 1
        name = f"17{self.number}{self.made:06}.M{self.made}P{self.number}.host"
        if self.try_to(touch, f"tmp/{name}") and self.try_to(os.rename, f"tmp/{name}", f"new/{name}"):
            self.at[name] = f"new/{name}"
        else:
            found = self.whereabouts(name)
            assert len(found) <= 1, found
            if found and found[0].startswith("new"):
                self.at[name] = found[0]

    def move(self):
        name = self.random.choice(sorted(self.at))
        old, new = self.at[name], f"cur/{name}:2," + "".join(self.random.sample("FRST", 2))
        if self.try_to(os.rename, old, new):
            self.at[name] = new
            return
        found = self.whereabouts(name)
        assert found in ([old], [new]), f"{found}, was {old}, to be {new}"
        self.at[name] = found[0]

    def expunge(self):
        name = self.random.choice(sorted(self.at))
        old = self.at.pop(name)
        if self.try_to(os.unlink, old):
            return
        found = self.whereabouts(name)
        assert found in ([old], []), f"{found}, was {old}"
        if found:
            self.at[name] = old

    def look(self):
        """All of its own are listed, each once, and can be read."""
        half = self.random.choice(["new", "cur"])
        said = self.listed(half)
        if said and self.windows:
            until(said, lambda: not self.listed(half))
        else:
            assert not said, said

    def listed(self, half):
        """What is wrong in it."""
        try:
            names = ls(self.path(half))
        except OSError as e:
            assert e.errno in CUT_OFF, e
            return ""
        mine = {os.fsencode(w.split("/")[1]) for w in self.at.values() if w.startswith(half)}
        gone = {n for n in names if base(n).endswith(b"P%d.host" % self.number)} - mine
        return f"{half}: not listed: {mine - names}, still listed: {gone}" if gone or not mine <= names else ""


def wrong(sessions):
    return [s.wrong for s in sessions if s.wrong]


def kill_maildexfs(m):
    """And what its unit does (ExecStopPost=umount -l, Restart=always). Returns how long nobody was answered, in ms."""
    start = time.monotonic()
    fs, m.fs = m.fs, None
    fs.kill()
    subprocess.run(["umount", "-l", m.up()], check=True, timeout=WAIT_S)
    fs.wait(WAIT_S)
    m.fs_start()
    os.stat(m.up("u"))
    return (time.monotonic() - start) * 1000


def same(m, half):
    above, below = ls(m.up("u", half)), ls(m.below(f"u/{half}"))
    return above == below or print(f"{half}: missing {below - above}, wrong {above - below}")


@pytest.mark.parametrize("window_min", [3, 100000], ids=["windows", "small"])
def test_killed_again_and_again(maildex, window_min, figures):
    m, rng, away = maildex, random.Random(window_min), []
    m.conf.update(mount=m.root, window_min=window_min, confirm="1s")
    real = os.open(m.root, os.O_PATH)  # the plain tree, whatever is mounted on it
    m.below = lambda path: f"/proc/self/fd/{real}/{path}"
    m.start()
    m.fs_start()
    sessions = [Session(m, n, window_min == 3) for n in range(1, SESSIONS + 1)]
    for s in sessions:
        s.start()
    try:
        for i in range(KILLS):
            so_far, more = sum(s.done for s in sessions), rng.randint(5, 60)
            until("the sessions to work", lambda n=so_far + more: sum(s.done for s in sessions) >= n or wrong(sessions))
            which = ("maildexfs", "maildexd", "both")[i % 3]
            if which != "maildexfs":
                m.kill()
            if which != "maildexd":
                away.append(kill_maildexfs(m))
            for s in sessions:
                s.pause()
            for half in ("new", "cur"):
                # A call that began in the plain tree is a silent change in the moment of an own one: see "The exceptions".
                excused = until if window_min == 3 else lambda what, condition: condition()
                assert excused(f"{half} to be right", lambda h=half: same(m, h)), f"after kill {i} of {which}: {half}"
            if which != "maildexfs":
                m.start()
            for s in sessions:
                s.go.set()
    finally:
        for s in sessions:
            s.over = True
            s.go.set()
        for s in sessions:
            s.join(WAIT_S)
        os.close(real)
    assert not wrong(sessions)
    median = round(statistics.median(away))
    figures({"kills": KILLS, "operations": sum(s.done for s in sessions), "ms until answered again, median": median})
    assert all(os.path.exists(m.up("u", w)) for s in sessions for w in s.at.values())
    verify = [os.path.join(BUILD, "maildexctl"), "-c", m.command()[2], "verify", "--all"]

    def right():
        """What maildexd was not told of while it was away it learns with the next change, or when it must be listed again."""
        for half in ("new", "cur"):
            touch(m.up("u", half, "1800000000.M1P9.host"))
            os.unlink(m.up("u", half, "1800000000.M1P9.host"))
            ls(m.up("u", half))
        return subprocess.run(verify, stdout=subprocess.DEVNULL, check=False).returncode == 0

    until("the index to be right", right)


def test_nothing_is_left_of_a_crashed_mount(maildex):
    """Between umount -l and the next start the plain tree is under the path, and who stood in the mailbox goes on after
    chdir(2)."""
    m = maildex
    m.conf["mount"] = m.root
    names = m.fill("u", "cur", 5)
    m.fs_start()
    before = mounts_below(m.dir)
    m.fs_kill()
    subprocess.run(["umount", "-l", m.up()], check=True)
    assert ls(m.up("u/cur")) == {n.encode() for n in names}
    assert m.up() not in mounts_below(m.up())
    m.fs_start()
    assert mounts_below(m.dir) == before
    assert ls(m.up("u/cur")) == {n.encode() for n in names}


def test_a_planned_restart_loses_no_open_file(maildex):
    """serve lower, umount -l: who has something open goes on with it, who comes gets the plain tree, and the next maildexfs,
    started at once, takes over when the last one is done."""
    m = maildex
    m.conf["mount"] = m.root
    names = {n.encode() for n in m.fill("u", "cur", 3000)}
    touch(m.low("u/cur/1.M1P1.host:2,"), b"x" * 300000)
    names.add(b"1.M1P1.host:2,")
    m.fs_start()
    overlay = os.stat(m.up()).st_dev
    with opened(m.up("u/cur")) as directory, open(m.up("u/cur/1.M1P1.host:2,"), "rb", buffering=0) as message, open(
        m.up("u/tmp/2.M2P2.host"), "xb", buffering=0
    ) as letter:
        listed = [name for _, _, _, name in getdents(directory)]
        assert len(listed) < 3000
        assert len(message.read(1000)) == 1000
        letter.write(b"first")
        m.serve(SERVE_LOWER)
        subprocess.run(["umount", "-l", m.up()], check=True)
        assert os.stat(m.up()).st_dev != overlay
        assert ls(m.up("u/cur")) == names
        old, m.fs = m.fs, None
        starter = threading.Thread(target=m.fs_start)
        starter.start()
        os.rename(m.up("u/cur/1.M1P1.host:2,"), m.up("u/cur/1.M1P1.host:2,S"))  # by somebody who came since
        listed += [name for _, _, _, name in getdents_all(directory)]
        assert set(listed) - {b".", b".."} == names
        assert len(message.read(400000)) == 299000
        letter.write(b" second")
        os.fsync(letter.fileno())
        assert old.poll() is None and starter.is_alive()
    starter.join(WAIT_S)
    assert m.fs and old.wait(WAIT_S) == 0
    assert os.stat(m.up()).st_dev != os.stat(m.dir).st_dev
    with open(m.up("u/tmp/2.M2P2.host"), "rb") as letter:
        assert letter.read() == b"first second"
    assert ls(m.up("u/cur")) == names - {b"1.M1P1.host:2,"} | {b"1.M1P1.host:2,S"}

# SPDX-License-Identifier: GPL-2.0-or-later
"""A message that is renamed again and again, through the mount and below it, is reached by the name that it has: a call
by name succeeds or says ENOENT, as below. Where others rename it all the time, ESTALE is possible, as on NFS."""

import itertools
import os
import random
import threading
from errno import ESTALE

import pytest

from host import touch

NAMES = ["1.M1P1.host:2," + "".join(flags) for flags in ("", "S", "FS", "RS")]
CALLS = {
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "stat": os.stat,
    "link": lambda path: os.link(path, path.replace("/cur/1.", f"/tmp/{next(NUMBERS)}.")),
    "utime": lambda path: os.utime(path, (1, 1)),
}
NUMBERS = itertools.count(1000)


@pytest.mark.parametrize("call", CALLS)
def test_renamed_below_and_back(mounted, call):
    """Both names are known by then; the one that was there last is not the first that was seen."""
    touch(mounted.low("u/cur", NAMES[0]), b"x")
    for name, following in zip(NAMES, [*NAMES[1:], NAMES[0]]):
        os.stat(mounted.up("u/cur", name))
        os.rename(mounted.low("u/cur", name), mounted.low("u/cur", following))
        CALLS[call](mounted.up("u/cur", following))
    os.rename(mounted.low("u/cur", NAMES[0]), mounted.low("u/cur", NAMES[2]))
    CALLS[call](mounted.up("u/cur", NAMES[2]))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("where", ["up", "low"])
def test_renamed_meanwhile(maildex, call, where):
    """Names are looked up again with each call, while they change."""
    maildex.conf["revalidate"] = "0s"
    maildex.fs_start()
    touch(maildex.low("u/cur", NAMES[0]), b"x")
    errors, over = [], threading.Event()

    def use(name):
        while not over.is_set():
            try:
                CALLS[call](maildex.up("u/cur", name))
            except FileNotFoundError:
                pass
            except OSError as e:
                # Changed elsewhere twice within one call: the kernel asks again once, as a client of NFS does.
                if where == "up" or e.errno != ESTALE:
                    errors.append(e)
                    over.set()

    users = [threading.Thread(target=use, args=(n,)) for n in NAMES]
    for u in users:
        u.start()
    now, rng = NAMES[0], random.Random(1)
    for _ in range(1500):
        new = rng.choice(NAMES)
        os.rename(getattr(maildex, where)("u/cur", now), getattr(maildex, where)("u/cur", new))
        now = new
        if over.is_set():
            break
    over.set()
    for u in users:
        u.join()
    assert not errors
    assert maildex.same("u/cur") == {now.encode()}


def test_looked_up_while_it_is_renamed(maildex):
    """The look saw the old name, the rename was quicker to tell: the old name is not what the file is called."""
    maildex.conf["revalidate"] = "0s"
    maildex.fs_start()
    touch(maildex.low("u/cur/0"), b"x")
    at, over = [maildex.up("u/cur/0")], threading.Event()

    def look():
        while not over.is_set():
            try:
                os.stat(at[0])
            except FileNotFoundError:
                pass

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    try:
        for i in range(3000):
            new = maildex.up("u/cur", str(i + 1))
            old, at[0] = maildex.up("u/cur", str(i)), new
            os.rename(old, new)
            os.close(os.open(new, os.O_RDONLY))
    finally:
        over.set()
        for thread in lookers:
            thread.join()


def test_asked_for_while_it_goes(mounted):
    """Its name is gone and it is being closed: no answer comes from a descriptor that is closed, or another file's by
    now."""
    path, over, wrong = mounted.up("u/lock"), threading.Event(), []

    def ask():
        while not over.is_set():
            try:
                if os.stat(path).st_size != 7:
                    wrong.append("another file's size")
            except FileNotFoundError:
                pass
            except OSError as e:
                # Gone twice within one call, as a client of NFS says it.
                if e.errno != ESTALE:
                    wrong.append(e)

    def others():
        while not over.is_set():
            with open(mounted.up("u/other"), "w", encoding="ascii"):
                pass

    threads = [threading.Thread(target=f) for f in (ask, ask, others)]
    for t in threads:
        t.start()
    for _ in range(2000):
        # Made elsewhere with its contents, so that it has always these.
        with open(mounted.low("u/made"), "w", encoding="ascii") as f:
            f.write("4711:vm")
        os.rename(mounted.low("u/made"), mounted.low("u/lock"))
        fd = os.open(path, os.O_RDONLY)
        os.unlink(path)
        os.close(fd)
        if wrong:
            break
    over.set()
    for t in threads:
        t.join()
    assert not wrong

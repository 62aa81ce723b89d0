# SPDX-License-Identifier: GPL-2.0-or-later
"""Laws 1 to 3 under load: four workers deliver, move, flag and expunge at once, one of them perhaps silently in the lower tree. Each
sees its own changes at once, nobody ever misses a message that nobody touches, none is listed twice, and at rest all is equal."""

import collections
import os
import random
import threading

import pytest

from daemon import CUR
from host import Maildex, eventually

WORKERS, STEPS, MESSAGES = 4, 250, 600


class Worker(threading.Thread):
    """A session with messages of its own in one shared folder."""

    def __init__(self, m, number, top, untouched, mine):
        super().__init__()
        self.m, self.number, self.top = m, number, top
        self.untouched, self.mine = untouched, dict(mine)  # base -> flags
        self.random = random.Random(number)
        self.wrong = []

    def run(self):
        try:
            for step in range(STEPS):
                self.random.choice([self.flag, self.expunge, self.deliver, self.check])(step)
        except Exception as e:  # pylint: disable=broad-except
            self.wrong.append(repr(e))

    def flag(self, _):
        name = self.random.choice(list(self.mine))
        flags = "2," + "".join(sorted(self.random.sample("DFRST", self.random.randint(0, 5))))
        if flags != self.mine[name]:
            os.rename(f"{self.top}/cur/{name}:{self.mine[name]}", f"{self.top}/cur/{name}:{flags}")
            self.mine[name] = flags

    def expunge(self, _):
        if len(self.mine) > 1:
            name = self.random.choice(list(self.mine))
            os.unlink(f"{self.top}/cur/{name}:{self.mine.pop(name)}")

    def deliver(self, step):
        name = f"18{self.number}{step:05}.M{step}P1.host"
        with open(f"{self.top}/tmp/{name}", "xb") as f:
            f.write(b"x")
        os.link(f"{self.top}/tmp/{name}", f"{self.top}/new/{name}")
        os.unlink(f"{self.top}/tmp/{name}")
        os.rename(f"{self.top}/new/{name}", f"{self.top}/cur/{name}:2,")
        self.mine[name] = "2,"

    def check(self, step):
        listed = os.listdir(self.m.up("u/cur"))
        count = collections.Counter(n.split(":")[0] for n in listed)
        twice = [n for n, c in count.items() if c > 1]
        lost = self.untouched - set(listed)
        own = {f"{n}:{f}" for n, f in self.mine.items()} - set(listed)
        if self.top == self.m.low("u") and self.m.conf["window_min"] <= MESSAGES:
            own = set()  # a silent change may hide inside others' windows, until they are confirmed
        if twice or lost or own:
            self.wrong.append(f"step {step}: twice {twice[:3]}, lost {sorted(lost)[:3]}, own {sorted(own)[:3]}")


@pytest.mark.parametrize("daemon", [False, True], ids=["alone", "with maildexd"])
@pytest.mark.parametrize("silent", [False, True], ids=["mount only", "silent writer"])
@pytest.mark.parametrize("window_min", [100, 100000], ids=["windows", "small"])
def test_four_sessions_on_one_folder(maildex, window_min, silent, daemon):
    maildex.conf.update(window_min=window_min, confirm="1s")
    names = maildex.fill("u", "cur", MESSAGES)
    if daemon:
        maildex.start()
    maildex.fs_start()
    workers, untouched = [], {n for i, n in enumerate(names) if i % (2 * WORKERS) < WORKERS}
    for k in range(WORKERS):
        top = maildex.low("u") if silent and k == 0 else maildex.up("u")
        mine = [n.split(":") for n in names[k + WORKERS :: 2 * WORKERS]]
        workers.append(Worker(maildex, k, top, untouched, mine))
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not [x for w in workers for x in w.wrong]
    done = {os.fsencode(f"{n}:{f}") for w in workers for n, f in w.mine.items()} | set(map(os.fsencode, untouched))
    if silent:  # what hid inside a window shows at the latest when its trust is confirmed
        eventually("the listing to be right", lambda: set(os.listdir(os.fsencode(maildex.up("u/cur")))) == done)
    assert maildex.same("u/cur") == done
    assert not maildex.same("u/new")
    if daemon:
        maildex.proven("u/cur")
        eventually("the index to be right", lambda: maildex.names("u", CUR) == maildex.disk("u", CUR))


@pytest.mark.parametrize("window_min", [100, 100000], ids=["windows", "small"])
def test_two_hosts_on_one_tree(maildex, window_min):
    """Each with its own daemon, index and mount, and no bus between them: to each the other is a silent writer."""
    maildex.conf.update(window_min=window_min, confirm="1s")
    names = maildex.fill("u", "cur", MESSAGES)
    with Maildex(window_min=window_min, confirm="1s") as other:
        os.rmdir(other.root)
        other.root = other.conf["root"] = maildex.root
        hosts = [maildex, other]
        untouched, workers = {n for i, n in enumerate(names) if i % (2 * WORKERS) < WORKERS}, []
        for m in hosts:
            m.start()
            m.fs_start()
        for k in range(WORKERS):
            mine = [n.split(":") for n in names[k + WORKERS :: 2 * WORKERS]]
            workers.append(Worker(hosts[k % 2], k, hosts[k % 2].up("u"), untouched, mine))
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        assert not [x for w in workers for x in w.wrong]
        done = {os.fsencode(f"{n}:{f}") for w in workers for n, f in w.mine.items()} | set(map(os.fsencode, untouched))
        for m in hosts:
            eventually("both to be right", lambda m=m: set(os.listdir(os.fsencode(m.up("u/cur")))) == done)
            m.same("u/cur")

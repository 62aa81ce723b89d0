# SPDX-License-Identifier: GPL-2.0-or-later
"""Two storage mounts below one root, one of which hangs on order with sessions in it."""

import contextlib
import os

from daemon import until
from faultfs import FaultFs
from host import Maildex

STUCK = 20


class TwoStorages(Maildex):
    """root/slow and root/well are filesystems of their own; slow obeys self.slow."""

    def __init__(self, **conf):
        super().__init__(**conf)
        self.slow, self.well = (
            FaultFs(os.path.join(self.dir, "made-" + name), os.path.join(self.root, name)) for name in ("slow", "well")
        )
        self.mirrors = []  # that are mounted

    def __enter__(self):
        try:
            for storage in (self.slow, self.well):
                os.mkdir(storage.made, 0o755)
                os.mkdir(storage.mirror, 0o755)
                self.mirrors.append(storage.__enter__())
            for name in ("slow", "well"):
                for n in range(STUCK):
                    self.maildir(f"{name}/u{n}", new=2, cur=5)
            super().__enter__()
            return self
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, *args):
        with contextlib.ExitStack() as last_first:
            last_first.callback(super().__exit__, *args)
            for mirror in self.mirrors:
                last_first.callback(mirror.close)
            if self.process:
                last_first.callback(self.stop)
            last_first.callback(self.fs_end)
            for mirror in self.mirrors:
                last_first.callback(mirror.free)


def listing(top):
    os.listdir(f"{top}/cur")


def looking(top):
    os.stat(f"{top}/new")


def reading(top):
    with open(f"{top}/cur/1600000001.M1P1.host:2,S", "rb") as f:
        f.read()


def flagging(top):
    os.rename(f"{top}/cur/1600000002.M1P1.host:2,S", f"{top}/cur/1600000002.M1P1.host:2,ST")


def delivering(top):
    with open(f"{top}/tmp/18.M1P1.host", "xb") as f:
        f.write(b"x")


CALLS = [listing, looking, reading, delivering]


@contextlib.contextmanager
def hung(m, processes, calls=None, sessions=STUCK):
    """All that is asked of slow/ waits, with sessions in it. A rename between directories would hold the kernel's lock over
    all such renames of the mount, as on plain NFS: flags are set within one."""
    made = [processes() for _ in range(sessions)]
    m.slow.delay("*", "*", 600000)
    try:
        for n, p in enumerate(made):
            p.begin((calls or CALLS)[n % len(calls or CALLS)], m.up(f"slow/u{n % STUCK}"))
        until("them to be stuck", lambda: m.slow.waiting() >= 1)
        yield made
    finally:
        m.slow.clear()
    for p in made:
        if p.pid:
            p.end()

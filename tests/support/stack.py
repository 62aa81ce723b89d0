# SPDX-License-Identifier: GPL-2.0-or-later
"""One maildexd and one maildexfs on a tree of their own, for the demo and the benchmark. Started as an administrator
would start them: each program returns when it answers."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("MAILDEX_BUILD", "build/gcc"))
WAIT_S = 60 * int(os.environ.get("MAILDEX_SLOW", "1"))  # until something is called broken


class Trouble(Exception):
    """What a person should read instead of a stack trace."""


def run(*argv, ok=(0,), timeout=WAIT_S, **kw):
    """Runs a program; returns what it printed."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **kw)
    except subprocess.TimeoutExpired:
        raise Trouble(f"{' '.join(argv)}: took longer than {timeout} s") from None
    except OSError as e:
        raise Trouble(f"{argv[0]}: {e.strerror}") from None
    if done.returncode not in ok:
        raise Trouble(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def await_end(pid):
    """Waits until a process that is not our child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        p = select.poll()
        p.register(fd, select.POLLIN)
        if not p.poll(WAIT_S * 1000):
            raise Trouble(f"process {pid} does not end")
    finally:
        os.close(fd)


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split(" ")[4] == path for line in f)


def unmount(path):
    if is_mounted(path):
        run("umount", path, ok=(0, 32))
    if is_mounted(path):
        run("umount", "-l", path)


class Signals:
    """A signal ends us as an error does: what was started is taken down. While something is being started it waits, so
    that nothing is running that we don't know of."""

    holding, pending = False, None

    @classmethod
    def catch(cls, number, _):
        if not cls.holding:
            sys.exit(128 + number)
        cls.pending = number

    @classmethod
    @contextlib.contextmanager
    def hold(cls):
        cls.holding = True
        try:
            yield
        finally:
            cls.holding = False
            if cls.pending:
                sys.exit(128 + cls.pending)


class Stack:
    def __init__(self, top, root, mount, name="maildex", **conf):
        self.dir = os.path.join(top, name)
        os.mkdir(self.dir, 0o755)
        self.mount = mount
        self.index = os.path.join(self.dir, "index", "index.sqlite")
        self.conf = os.path.join(self.dir, "maildex.conf")
        self.log = os.path.join(self.dir, "log")
        self.pids = {}
        keys = {
            "root": root,
            "mount": mount,
            "index": self.index,
            "socket": os.path.join(self.dir, "run", "maildexd.sock"),
            **conf,
        }
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write("[maildex]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))

    def _start(self, program):
        with open(self.log, "ab") as log:
            try:
                code = subprocess.run(
                    [os.path.join(BUILD, program), "-c", self.conf],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=WAIT_S,
                ).returncode
            except subprocess.TimeoutExpired:
                code = "none in time"
        if code != 0:
            raise Trouble(f"{program}: exit {code}\n{self.logged()}")
        self.pids[program] = int(self.status()[program + ".pid"])

    def logged(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def start_maildexd(self):
        with Signals.hold():
            self._start("maildexd")

    def start_maildexfs(self):
        with Signals.hold():
            self._start("maildexfs")

    def ctl(self, *args, ok=(0,), timeout=WAIT_S):
        return run(os.path.join(BUILD, "maildexctl"), "-c", self.conf, *args, ok=ok, timeout=timeout)

    def status(self):
        return json.loads(self.ctl("status", "--json", ok=(0, 1, 3)))

    def stop_maildexfs(self):
        pid = self.pids.pop("maildexfs", None)
        unmount(self.mount)
        if pid:
            await_end(pid)

    def stop_maildexd(self):
        pid = self.pids.pop("maildexd", None)
        if pid:
            os.kill(pid, signal.SIGTERM)
            await_end(pid)

    def stop(self):
        self.stop_maildexfs()
        self.stop_maildexd()


class Scratch:
    """A folder of our own that is taken down at the end, whatever happens."""

    def __init__(self, prefix):
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, Signals.catch)
        where = os.environ.get("TMPDIR", "/var/tmp")
        self.dir = tempfile.mkdtemp(prefix=prefix, dir=where)
        os.chmod(self.dir, 0o755)
        self.undo = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(s, signal.SIG_IGN)
        for step in reversed(self.undo):
            try:
                step()
            except Trouble as e:
                print(e, file=sys.stderr)
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            left = [p for p in (line.split(" ")[4] for line in f) if p.startswith(self.dir + "/")]
        if left:
            raise Trouble(f"still mounted, so {self.dir} was not removed: {' '.join(left)}")
        shutil.rmtree(self.dir)

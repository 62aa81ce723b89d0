# SPDX-License-Identifier: GPL-2.0-or-later
"""A lower tree that imitates what NFS shows and misbehaves on order: tests/support/faultfs (control.h there has the orders),
mounted as sshfs, so that maildexfs takes it for a network filesystem.

Options: attr_ms, entry_ms (what the client's kernel keeps, and how long), tick_ms (times are rounded down), squash=1 (root is
nobody), sized=1 (a directory's size is its number of entries), unknown=1 (listings tell no types), silly=1 (a file that is
removed while open becomes .nfsXXXX), numbers=1 (a file's inode number is the one that its name begins with).

Calls have the names of FUSE's operations; getattr (statx) is also each step of a path that the kernel asks for. Paths are
relative to the mirror and match as fnmatch(3) without flags; a rename or a link matches by its old or its new path, and
is counted by the old one. "*" stands for all calls."""

import contextlib
import os
import socket
import subprocess
import tempfile
import threading

from daemon import BUILD, WAIT_S
from host import Maildex, mounts_below

FAULTFS = os.path.abspath(os.path.join(BUILD, "faultfs"))
PACKET = 65536


class Control:
    """One connection; the rules that it orders end with it."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(path)
        self.lock = threading.Lock()

    def send(self, *fields):
        self.sock.sendall(b" ".join(os.fsencode(str(f)) for f in fields))

    def recv(self):
        """A packet; b"" at the end."""
        try:
            return self.sock.recv(PACKET)
        except ConnectionResetError:
            return b""

    def answer(self):
        """What follows "ok"."""
        data = self.recv()
        assert data, "faultfs has ended"
        if data.startswith(b"error "):
            raise ValueError(os.fsdecode(data[6:]))
        assert data.startswith(b"ok"), data
        return data[3:]

    def ask(self, *fields):
        with self.lock:
            self.send(*fields)
            return self.answer()

    def close(self):
        self.sock.close()


class Hold:
    """The nth matching call waits before it is carried out, until release(), close() or the end of this process."""

    def __init__(self, path, call, pattern, nth):
        self.what = f"{call} {pattern}"
        self.control = Control(path)
        try:
            self.control.ask("hold", call, nth, pattern)
        except BaseException:
            self.control.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def wait(self):
        """Until a call is held."""
        try:
            data = self.control.recv()
        except TimeoutError:
            data = b"none came"
        assert data == b"held", f"waited for a call to be held: {self.what}: {os.fsdecode(data or b'faultfs has ended')}"

    def release(self):
        self.control.send("release")
        while self.control.recv() not in (b"ok", b""):
            pass

    def close(self):
        self.control.close()


class Between:
    """with Between(...): change() runs in a thread while the nth matching call is held. .ran: it did."""

    def __init__(self, path, call, pattern, change, nth):
        self.path, self.call, self.pattern, self.change, self.nth = path, call, pattern, change, nth
        self.ran, self.failed = False, None

    def __enter__(self):
        self.hold = Hold(self.path, self.call, self.pattern, self.nth)
        self.thread = threading.Thread(target=self._wait, daemon=True)
        self.hold.control.sock.settimeout(None)  # until cancelled
        self.thread.start()
        return self

    def _wait(self):
        while True:
            data = self.hold.control.recv()
            if data == b"ok held":
                continue
            if data == b"held":
                try:
                    self.change()
                    self.ran = True
                except BaseException as e:  # pylint: disable=broad-except
                    self.failed = e
                self.hold.release()
            return

    def __exit__(self, kind, *_):
        with contextlib.suppress(OSError):
            self.hold.control.send("cancel")
        self.thread.join(WAIT_S)
        stuck = self.thread.is_alive()
        self.hold.close()
        assert not stuck, f"what was to be done while {self.call} {self.pattern} waits does not end"
        if self.failed and kind is None:
            raise self.failed
        return False


class FaultFs:
    """with FaultFs(made, mirror, **options) as f: mirror shows made."""

    def __init__(self, made, mirror, **options):
        self.made, self.mirror, self.options = made, os.path.abspath(mirror), options
        self.path, self.log = self.mirror + ".control", self.mirror + ".log"
        self.process = self.control = None

    def __enter__(self):
        options = {"hold_s": 5 * WAIT_S, **self.options, "control": self.path, "subtype": "sshfs", "fsname": "faultfs"}
        text = ",".join(["allow_other", *(f"{k}={int(v) if isinstance(v, bool) else v}" for k, v in options.items())])
        environment = {**os.environ, "TSAN_OPTIONS": os.environ.get("TSAN_OPTIONS", "") + " atexit_sleep_ms=0"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [FAULTFS, self.made, self.mirror, "-o", text], stdout=subprocess.PIPE, stderr=log, env=environment
            )
        try:
            said = self.process.stdout.readline()
            assert said == b"ready\n", f"faultfs does not start: {self.logged()}"
            self.control = Control(self.path)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def logged(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def close(self):
        """Held calls go on; it is unmounted, also while it is in use, and ends."""
        process, self.process = self.process, None
        if not process:
            return
        self.free()
        if self.control:
            self.control.close()
        try:
            if self.mirror in mounts_below(self.mirror):
                done = subprocess.run(["umount", self.mirror], check=False, stderr=subprocess.DEVNULL, timeout=WAIT_S)
                if done.returncode:
                    subprocess.run(["umount", "-l", self.mirror], check=False, timeout=WAIT_S)
                    process.terminate()
            code = process.wait(WAIT_S)
            assert code == 0, f"faultfs ended with {code}: {self.logged()}"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            print(self.logged(), end="")  # shown if the test failed
            os.unlink(self.log)
            assert self.mirror not in mounts_below(self.mirror)

    def free(self):
        """Nothing hangs any more, whatever state it is in."""
        with contextlib.suppress(OSError, AssertionError, AttributeError):
            self.clear()

    # -- orders

    def fail(self, call, path, error, nth=1, times=1):
        """The nth matching call from now fails, and so do those behind it: `times` in all; 0: for ever."""
        self.control.ask("fail", call, error, nth, times, path)

    def lose(self, call, path, error, nth=1, times=1):
        """The same for a call that changes names, but it is carried out: what failed is only the answer."""
        self.control.ask("lose", call, error, nth, times, path)

    def delay(self, call, path, ms, nth=1, times=0):
        """Matching calls take so long."""
        self.control.ask("delay", call, ms, nth, times, path)

    def hold(self, call, path, nth=1):
        return Hold(self.path, call, path, nth)

    def between(self, call, path, change, nth=1):
        return Between(self.path, call, path, change, nth)

    def waiting(self):
        """How many calls are held or delayed now."""
        return int(self.control.ask("waiting"))

    def clear(self):
        """All rules go, all held calls go on."""
        self.control.ask("clear")

    def counts(self):
        """{"CALL PATH": times}, of all calls since the start or counts_reset()."""
        found, first = {}, 0
        while True:
            head, *fields = self.control.ask("counts", first).split(b"\0")
            found.update({os.fsdecode(k): int(n) for k, n in zip(fields[::2], fields[1::2])})
            first = int(head)
            if not first:
                return found

    def counts_reset(self):
        self.control.ask("reset")

    def clock(self, at_ns, back_ns):
        """From the real time at_ns on, the server's clock is back_ns late. Steps add up."""
        self.control.ask("clock", at_ns, back_ns)

    def stamp(self, path, now_ctime_ns, ctime_ns, mtime_ns):
        """While the real ctime of the directory is now_ctime_ns, these times are shown (as they are: no clock, no ticks)."""
        self.control.ask("stamp", now_ctime_ns, ctime_ns, mtime_ns, path)


class Faulty(Maildex):
    """One host whose root is a FaultFs over made (a given tree, which stays; or one of its own)."""

    def __init__(self, faults=None, made=None, **conf):
        self._given = made
        super().__init__(**conf)
        self.faults = FaultFs(self.made, self.root, **(faults or {}))

    def _root(self):
        mirror = os.path.join(self.dir, "mail")
        os.mkdir(mirror, 0o755)
        return mirror, self._given or self._made()

    @staticmethod
    def _made():
        made = tempfile.mkdtemp(prefix="made-")
        os.chmod(made, 0o755)
        return made

    def there(self, *parts):
        """In the real tree: as other hosts see and change it."""
        return os.path.join(self.made, *parts)

    def __enter__(self):
        self.faults.__enter__()
        return super().__enter__()

    def __exit__(self, *args):
        """The mirror goes before our own directory is removed with all that is below it."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(super().__exit__, *args)
            last_first.callback(self._keep)
            last_first.callback(self.faults.close)
            if self.process:
                last_first.callback(self.stop)
            last_first.callback(self.fs_end)
            last_first.callback(self.faults.free)

    def _keep(self):
        """Whoever gave us a tree removes it."""
        if self._given:
            self.made = self._made()

# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of delivery agents share: accounts with the same Maildirs on the mount, below it and in a plain tree; messages;
programs of build/deps; what a delivery left behind; whether maildexd heard of it."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile

from daemon import ADD, BUILD, CUR, NEED, NEW, LOOK, ROLE_FS, WAIT_S, standing_still, until
from host import Maildex, ls
from talk import TOP, Account

# Agents deliver as the mail's owner, who may not be able to walk to this checkout: they get copies.
SHARED = tempfile.TemporaryDirectory(prefix="maildex-agents-")
os.chmod(SHARED.name, 0o755)
HOOKS = shutil.copytree(os.path.join(TOP, "tools", "hooks"), os.path.join(SHARED.name, "hooks"))
NOTIFY = shutil.copy(os.path.join(TOP, BUILD, "maildex-notify"), SHARED.name)
USERS = {"anna": 6101, "bert": 6102}
SENDER = "sender@example.net"


def text(marker, body):
    """A message; the marker makes it known again."""
    head = f"From: {SENDER}\nTo: anna@example.org\nSubject: {marker}\nMessage-ID: <{marker}@example.net>\n"
    return (head + "Date: Sun, 13 Sep 2020 12:26:40 +0000\nMIME-Version: 1.0\n").encode() + (
        b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + body
    )


MESSAGES = {
    "small": text("small", b"hello\n"),
    "8bit": text("8bit", "Grüße, ¿qué? 你好\n".encode() + bytes(range(0xA0, 0x100)) + b"\n"),
    "dots": text("dots", b".\n..\n.dot\n\n.\nFrom here on, what a mailbox file would change\n>From here\n.\n"),
    "long": text("long", b"x" * 990 + b"\n" + b"y" * 4000 + b"\nlast\n"),
    "endless": text("endless", b"x" * 70_000 + b"\nlast\n"),
    "large": text("large", b"".join(b"%08d %060d\n" % (i, i * i) for i in range(75_000))),
}
assert len(MESSAGES["large"]) > 5_000_000


class Place(Maildex):
    """A host with the accounts' homes in its tree, and in a plain one beside it."""

    def __init__(self, mode="beside", **conf):
        """mode: "beside": the mount is elsewhere; "over": mount = root."""
        super().__init__(**conf)
        self.plain = os.path.join(self.dir, "plain")
        self.over = mode == "over"
        if self.over:
            self.conf["mount"] = self.root
        os.mkdir(self.plain, 0o755)
        for tree in (self.root, self.plain):
            for name, uid in USERS.items():
                home = os.path.join(tree, name)
                for d in (home, *(os.path.join(home, "Maildir", half) for half in ("", "new", "cur", "tmp"))):
                    os.mkdir(d, 0o700)
                    os.chown(d, uid, uid)
        # What the hooks run. Agents that clear their environment need its path in their configuration.
        self.notify = os.path.join(self.dir, "maildex-notify")
        self.command()
        with open(self.notify, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\nexec {NOTIFY} -c {self.dir}/maildex.conf "$@"\n')
        os.chmod(self.notify, 0o755)
        self.low_root = self.root

    def fs_start(self, *args, **options):
        super().fs_start(*args, **options)
        if self.over:
            self.low_root = os.path.join(os.path.dirname(self.socket), "lower")
        return self

    def low(self, *parts):
        return os.path.join(self.low_root, *parts)

    # -- what maildexd hears

    def settled(self):
        """maildexd holds all folders and waits for nothing: what it tells from now on, it has heard of."""
        with self.client() as c:
            assert c.rebuild()[0] == 0
        for name in USERS:
            for half in (NEW, CUR):
                until("a quiet folder", lambda f=f"{name}/Maildir", h=half: self._quiet(f, h))
        # A scrub finds mail by itself: one begins soon after a start with an index, the next one hours later.
        self.stop()
        self.start()
        with self.client() as c:
            until("the first scrub", lambda: int(c.status()["scrub.done"]) >= 1)
        return self

    def _quiet(self, folder, half):
        row = self.row(folder, half)
        if row and not row["need"] and not row["unsettled"]:
            return True
        with self.client() as c:
            c.rebuild(folder)
        return False

    @contextlib.contextmanager
    def heard(self, name, by_name=False):
        """Deliveries to that account are made known in this block, by the message's name or as "look there"."""
        with self.client() as c:
            self.idle(c)
        with self.client(role=ROLE_FS) as feed:
            before, listings = self.disk(f"{name}/Maildir", NEW), self._listings()
            yield
            arrived = self.disk(f"{name}/Maildir", NEW).keys() - before.keys()
            assert arrived, "nothing was delivered"
            while arrived:
                told = feed.feed()
                assert told.folder == f"{name}/Maildir", told.folder
                for kind, message, _, _ in told.changes:
                    assert told.half == NEW
                    if kind in (LOOK, NEED) and not by_name:
                        arrived.clear()
                    elif kind == ADD:
                        arrived.discard(message)
            assert self._listings() == listings, "maildexd found it by itself"

    def _listings(self):
        with self.client() as c:
            return c.status()["lower.listings"]

    @contextlib.contextmanager
    def stopped(self):
        """maildexd is there but answers nothing."""
        with standing_still(self.process):
            yield


def accounts(tree):
    return {name: Account(name, uid, os.path.join(tree, name)) for name, uid in USERS.items()}


# -- what is left


def messages(maildir):
    """Paths of all messages in a Maildir; nothing may be left in its tmp/."""
    assert not ls(os.path.join(maildir, "tmp"))
    return [os.path.join(maildir, half, os.fsdecode(n)) for half in ("new", "cur") for n in ls(os.path.join(maildir, half))]


def marker(data):
    return re.search(rb"^Subject: (.*)$", data, re.M)[1].decode()


# A name's parts are made of the time, the process, the device, the inode: digits, and hexadecimal ones behind a letter.
NUMBERS = re.compile(r"(?<![A-Za-z])[0-9]+|(?<=[MPQRVIH])[0-9a-fA-F]+")

# Lines that hold a time, a process, a number in a queue; local(8) of Postfix writes the first one for mailbox_command.
TIMED = re.compile(rb"(?m)\AFrom .*\n|^Received:.*\n(?:[ \t].*\n)*")


def facts(tree):
    """{(account, half, subject): what is to be the same wherever it was delivered}"""
    found = {}
    for name in USERS:
        for path in messages(os.path.join(tree, name, "Maildir")):
            with open(path, "rb") as f:
                data = f.read()
            st = os.stat(path)
            head, body = data.split(b"\n\n", 1)
            head = TIMED.sub(b"", head + b"\n")
            key = (name, os.path.basename(os.path.dirname(path)), marker(data))
            assert key not in found, f"{key} is there twice"
            found[key] = (
                head,
                hashlib.sha256(body).hexdigest(),
                oct(st.st_mode),
                st.st_uid,
                st.st_gid,
                st.st_nlink,
                NUMBERS.sub("0", os.path.basename(path)),
            )
    return found


UIDVALIDITY = re.compile(r"(?<=/dovecot-uidvalidity)\.[0-9a-f]{8}$")  # Dovecot makes it of the time


def others(tree):
    """All files that aren't messages, with owner and mode; what is made for a time is gone."""
    found = {}
    for top, dirs, files in os.walk(tree):
        for n in dirs + files:
            if os.path.basename(top) not in ("new", "cur"):
                st = os.lstat(os.path.join(top, n))
                path = os.path.relpath(os.path.join(top, n), tree)
                found[UIDVALIDITY.sub(".TIME", path)] = (oct(st.st_mode), st.st_uid, st.st_gid)
    return found


# -- programs


class Inside:
    """A group of programs of build/deps with our accounts: one mount namespace, in which all of them run."""

    def __init__(self, directory, group, homes, bind=None):
        """bind: a folder in whose place the programs see our directory."""
        passwd = os.path.join(directory, f"{group}.passwd")
        with open(passwd, "w", encoding="ascii") as f:
            f.writelines(f"{a.name}:x:{a.uid}:{a.uid}::{a.home}:/bin/sh\n" for a in homes.values())
        keeper = [os.path.join(TOP, "tests/support/inside"), "-p", passwd, group, "sh", "-c"]
        keeper.append(f"{f'mount --bind {directory} {bind} && ' if bind else ''}echo ready && exec cat")
        self.keeper = subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = self.keeper.stdout.readline()
        assert said == b"ready\n", f"inside {group}: said {said}, exit {self.keeper.wait(WAIT_S)}"
        self.argv = ["nsenter", f"--target={self.keeper.pid}", "--mount", "--root", "--wd", "--"]
        self.space = os.readlink(f"/proc/{self.keeper.pid}/ns/mnt")
        assert self.space != os.readlink("/proc/self/ns/mnt")

    def close(self):
        """Ends what still runs in it, told by the namespace."""
        left = [pid for pid in self.running() if pid != self.keeper.pid]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.keeper.stdin.close()
        self.keeper.wait(WAIT_S)
        self.keeper.stdout.close()
        until("processes to end", lambda: not self.running())

    def running(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/mnt") == self.space:
                    found.append(int(pid))
        return found


def as_account(account):
    """The start of a command line: as that account, in its home."""
    ids = [f"--reuid={account.uid}", f"--regid={account.uid}", "--clear-groups"]
    # nsenter has changed the folder to /, so it is entered from inside.
    return ["setpriv", *ids, "env", "-C", account.home, f"HOME={account.home}", f"USER={account.name}"]


def run(argv, data=b"", env=None):
    """Runs it to its end; it must succeed. Returns what it said."""
    done = subprocess.run(
        argv,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", **(env or {})},
        timeout=WAIT_S,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}: {said}"
    return said


def write(path, content, mode=0o644, owner=0):
    with open(path, "w", encoding="utf-8") as f:
        f.write(content)
    os.chmod(path, mode)
    os.chown(path, owner, owner)
    return path

# SPDX-License-Identifier: GPL-2.0-or-later
"""Courier's imapd and courierpop3d, unmodified, over pipes: started as its login programs start them when somebody has
logged in, as the mailbox's owner, in the owner's home, with the settings of Debian's /etc/courier/imapd."""

import os
import signal
import subprocess

from daemon import WAIT_S, until
from talk import TOP, Talk
from versions import INSIDE

GROUP = os.path.join(TOP, "build/deps/courier")

SETTINGS = {
    "IMAP_CAPABILITY": "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE THREAD=ORDEREDSUBJECT THREAD=REFERENCES SORT QUOTA IDLE",
    "IMAP_KEYWORDS": "1",
    "IMAP_ACL": "1",
    "IMAP_IDLE_TIMEOUT": "60",
    "IMAP_CHECK_ALL_FOLDERS": "0",
    "IMAP_USELOCKS": "1",
    "IMAP_ENHANCEDIDLE": "0",
    "IMAP_TRASHFOLDERNAME": "Trash",
    "IMAP_EMPTYTRASH": "Trash:7",
    "IMAP_MOVE_EXPUNGE_TO_TRASH": "0",
}


class Courier:
    """with Courier(directory, accounts) as server: server.imap(account), server.pop3(account)."""

    name = "courier"

    def __init__(self, directory, accounts, **settings):
        """directory: made here, removed by the caller. settings: more of them, or others than Debian's."""
        os.makedirs(directory, mode=0o755, exist_ok=True)
        self.settings, self.talks = {**SETTINGS, **settings}, []
        self.log = os.path.join(directory, "courier.log")
        self.passwd = os.path.join(directory, "courier.passwd")
        self.inside = [INSIDE, "-p", self.passwd, "courier"]
        # Who asks for change notices (FAM, for its locks) starts a server for itself that outlives it: this finds them.
        self.fam = f"maildex-{os.getpid()}-{os.path.basename(directory)}"
        with open(self.passwd, "w", encoding="utf-8") as f:
            f.write("".join(f"{a.name}:x:{a.uid}:{a.uid}::{a.home}:/bin/sh\n" for a in accounts))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            for talk in self.talks:
                talk.close()
        finally:
            self._end_fam()

    def _end_fam(self):
        ours = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_fam(pid)]
        for pid in ours:
            os.kill(pid, signal.SIGKILL)
        until("Courier's FAM servers to end", lambda: not any(map(self._is_fam, ours)))

    def _is_fam(self, pid):
        """A server of ours that still runs."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                return b"GAM_CLIENT_ID=" + self.fam.encode() in f.read().split(b"\0")
        except OSError:
            return False

    def _start(self, account, program):
        """Over two pipes of ours."""
        ids = [f"--reuid={account.uid}", f"--regid={account.uid}", "--clear-groups"]
        env = {
            "HOME": account.home,
            "USER": account.name,
            "AUTHENTICATED": account.name,
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "GAM_CLIENT_ID": self.fam,
            **self.settings,
        }
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [*self.inside, "setpriv", *ids, "env", f"--chdir={account.home}", program, "Maildir"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                umask=0o022,
                bufsize=0,
            )

        def ended():
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

        talk = Talk(process.stdout, process.stdin, ended, f"{program} of {account.name}")
        self.talks.append(talk)
        return talk

    def imap(self, account):
        talk = self._start(account, "/usr/bin/imapd")
        while b"PREAUTH" not in (line := talk.line()):
            assert b"ALERT" not in line, line
        return talk

    def pop3(self, account):
        programs = ("/usr/lib/courier/courier/courierpop3d", "/usr/bin/pop3d")
        there = [p for p in programs if os.path.exists(GROUP + p)]
        talk = self._start(account, there[0])
        line = talk.line()
        assert line.startswith(b"+OK"), line
        return talk

    def logged(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

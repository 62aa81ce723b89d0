# SPDX-License-Identifier: GPL-2.0-or-later
"""A pre-authenticated session with an unmodified Courier imapd over pipes, as its login program would start it: as the
mailbox's owner, in the owner's home. How often it listed new/ and cur/ is counted by count.c inside of it."""

import os
import re
import subprocess
import threading
import time

from stack import TOP, Trouble

INSIDE = [os.path.join(TOP, "tests/support/inside"), "courier"]
IMAPD = "/usr/bin/imapd"
SESSION_S = 120


class Session:
    def __init__(self, home, owner, counter):
        """counter: (shared object, file that it appends to)."""
        env = {
            "HOME": home,
            "USER": owner.pw_name,
            "PATH": "/usr/bin:/bin",
            "AUTHENTICATED": owner.pw_name,
            "IMAP_CAPABILITY": "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE IDLE",
            # Debian 12's imapd asks FAM for change notices: no gam_server of ours may stay behind, and without one it
            # would only wait for it longer.
            "GAMIN_DEBUG_SERVER": "/bin/false",
            "IMAP_USELOCKS": "0",
            "IMAP_ENHANCEDIDLE": "0",
            "MAILDEX_COUNT": counter[1],
        }
        self.home, self.tag, self.listings, self.entries = home, 0, 0, 0
        self.counts = counter[1]
        ids = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self.process = subprocess.Popen(
            [*INSIDE, "setpriv", *ids, "env", f"LD_PRELOAD={counter[0]}", IMAPD, "Maildir"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=home,
            env=env,
            umask=0o077,
        )
        self.watchdog = threading.Timer(SESSION_S, self.process.kill)
        self.watchdog.start()
        try:
            while b"PREAUTH" not in self.line():
                pass
        except BaseException:
            self.abort()
            raise
        self.started = time.monotonic()

    def line(self):
        text = self.process.stdout.readline()
        if not text:
            raise Trouble(f"imapd in {self.home} ended early (exit {self.process.wait()})")
        return text

    def do(self, command):
        """Sends a command; returns its lines and literals. It must be answered OK."""
        self.tag += 1
        tag = f"a{self.tag} ".encode()
        self.process.stdin.write(tag + command.encode() + b"\r\n")
        self.process.stdin.flush()
        out = b""
        while True:
            text = self.line()
            out += text
            literal = re.search(rb"\{(\d+)\}\r\n$", text)
            if literal:
                out += self.process.stdout.read(int(literal[1]))
            elif text.startswith(tag):
                if not text.startswith(tag + b"OK"):
                    raise Trouble(f"imapd in {self.home}: {command}: {text.decode().strip()}")
                return out.decode()

    def end(self):
        """Logs out. Returns seconds since the greeting."""
        self.do("LOGOUT")
        took = time.monotonic() - self.started
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        self.watchdog.cancel()
        with open(self.counts, encoding="ascii") as f:
            self.listings, self.entries = map(int, f.read().splitlines()[-1].split())
        return took

    def abort(self):
        self.watchdog.cancel()
        self.process.kill()
        self.process.wait()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Real mail servers and one login of each kind. What is waited for comes, or the whole benchmark's time runs out: a
login of 100,000 messages takes long in an emulated machine.

Courier's programs are started as its login programs start them, by pipes; Dovecot is logged in to.
"""

import os
import re
import signal
import socket
import subprocess
import time

from courier import SETTINGS
from daemon import logs
from mailboxes import VMAIL
from versions import INSIDE

LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
IMAP_LOGIN = ("SELECT INBOX", "UID FETCH 1:* (FLAGS)", "LOGOUT")
POP3_LOGIN = ("STAT", "UIDL", "LIST", "QUIT")

DOVECOT_CONF = """
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
base_dir = {dir}/run
state_dir = {dir}/state
instance_name = bench
log_path = {dir}/log
protocols = imap pop3
ssl = no
auth_allow_cleartext = yes
first_valid_uid = 1
mail_driver = maildir
mail_path = ~/Maildir
mmap_disable = yes
mail_fsync = always
mail_nfs_index = yes
mail_nfs_storage = yes
mail_max_userip_connections = 100
passdb static {{
  password = secret
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {uid}
    home = {homes}/%{{user | domain}}/%{{user | username}}
  }}
}}
service imap-login {{
  inet_listener imap {{
    listen = 127.0.0.1
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    listen = 127.0.0.1
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""


class Broken(Exception):
    """A server that says something else than it should."""


class Talk:
    """One connection, by lines."""

    def __init__(self, source, sink, end):
        self.source, self.sink, self.end, self.tag = source, sink, end, 0

    def line(self):
        line = self.source.readline()
        if not line:
            raise Broken("the server hung up")
        return line

    def send(self, text):
        self.sink.write(text.encode() + b"\r\n")
        self.sink.flush()

    def imap(self, command):
        """All lines up to the tagged answer; literals are read and dropped."""
        self.tag += 1
        tag, out = b"a%d " % self.tag, []
        self.send(f"a{self.tag} {command}")
        while True:
            line = self.line()
            if literal := LITERAL.search(line):
                self.source.read(int(literal[1]))
            out.append(line)
            if line.startswith(tag):
                break
        if not out[-1].startswith(tag + b"OK"):
            raise Broken(f"{command}: {out[-1]}")
        return out

    def pop3(self, command):
        self.send(command)
        out = [self.line()]
        if not out[0].startswith(b"+OK"):
            raise Broken(f"{command}: {out[0]}")
        while command.split()[0] in ("UIDL", "LIST", "RETR", "TOP") and out[-1] != b".\r\n":
            out.append(self.line())
        return out

    def close(self):
        """Waits until the server is done with it."""
        self.sink.close()
        self.source.read()
        self.source.close()
        self.end()


class Courier:
    """with Courier() as server: server.imap(home) or server.pop3(home), logged in."""

    def __enter__(self):
        # Its files are shown to who is in this process's mount namespace.
        keeper = [INSIDE, "courier", "sh", "-c", "echo; exec sleep infinity"]
        self.keeper = subprocess.Popen(keeper, stdout=subprocess.PIPE)
        self.keeper.stdout.readline()
        self.space = os.open(f"/proc/{self.keeper.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_):
        os.close(self.space)
        self.keeper.kill()
        self.keeper.wait()

    def _start(self, home, program):
        def become():
            os.setns(self.space, os.CLONE_NEWNS)
            os.setgroups([])
            os.setresgid(VMAIL, VMAIL, VMAIL)
            os.setresuid(VMAIL, VMAIL, VMAIL)
            os.umask(0o022)
            os.chdir(home)

        env = {"HOME": home, "USER": "u", "AUTHENTICATED": "u", "PATH": "/usr/bin:/bin", **SETTINGS}
        process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
            [program, "Maildir"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            preexec_fn=become,
        )
        return Talk(process.stdout, process.stdin, process.wait)

    def imap(self, home):
        talk = self._start(home, "/usr/bin/imapd")
        while b"PREAUTH" not in (line := talk.line()):
            if b"ALERT" in line:
                raise Broken(line)
        return talk

    def pop3(self, home):
        talk = self._start(home, "/usr/lib/courier/courier/courierpop3d")
        talk.line()
        return talk


class Dovecot:
    """with Dovecot(directory, homes) as server. homes: a user USER@BOX lives in homes/BOX/USER; server.imap(user)."""

    def __init__(self, directory, homes):
        self.dir, self.homes = directory, homes

    def __enter__(self):
        os.makedirs(self.dir, mode=0o755)
        self.ports = {"imap": 10143, "pop3": 10110}
        conf = os.path.join(self.dir, "dovecot.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(DOVECOT_CONF.format(dir=self.dir, homes=self.homes, uid=VMAIL, **self.ports))
        with open(os.path.join(self.dir, "output"), "wb") as out:
            self.process = subprocess.Popen([INSIDE, "dovecot", "dovecot", "-F", "-c", conf], stdout=out, stderr=out)
        while not self._answers():
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def _answers(self):
        if self.process.poll() is not None:
            raise Broken("dovecot ended: " + logs(self.dir))
        try:
            with socket.create_connection(("127.0.0.1", self.ports["imap"])) as s:
                return b"OK" in s.recv(4096)
        except OSError:
            return False

    def _connect(self, protocol):
        s = socket.create_connection(("127.0.0.1", self.ports[protocol]))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = Talk(s.makefile("rb", 1 << 16), s.makefile("wb"), s.close)
        talk.line()
        return talk

    def imap(self, user):
        talk = self._connect("imap")
        talk.imap(f"LOGIN {user} secret")
        return talk

    def pop3(self, user):
        talk = self._connect("pop3")
        talk.pop3(f"USER {user}")
        talk.pop3("PASS secret")
        return talk


def login(talk, protocol):
    """From the server's greeting to its end. Returns how many messages it told of, and how many of them are flagged."""
    count = flagged = 0
    for command in IMAP_LOGIN if protocol == "imap" else POP3_LOGIN:
        lines = talk.imap(command) if protocol == "imap" else talk.pop3(command)
        if "FETCH" in command:
            count = sum(b" FETCH " in line for line in lines[:-1])
            flagged = sum(b"\\Flagged" in line for line in lines[:-1])
        elif command == "UIDL":
            count = len(lines) - 2
    talk.close()
    return count, flagged

# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Dovecot (imap, pop3 and lmtp), unmodified, with a configuration, sockets, log and state of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess

from daemon import WAIT_S, logs, until
from talk import Talk
from versions import INSIDE, only

PASSWORD = "secret"
TROUBLE = re.compile(r": (Warning|Error|Fatal|Panic): ")
# What is no trouble: the master says with a warning that it was asked to end.
STOPPED = re.compile(r"master: Warning: Killed with signal 15 ")
STOOD_STILL = re.compile(r": Warning: Time (jumped|moved) ")  # the whole machine
STARTED = "starting up for "  # it has its ports
IN_USE = "Address already in use"
CONNECTIONS = 2000  # more than any test makes

# Lines as `only` knows them.
CONF = """[2.4] dovecot_config_version = 2.4.0
[2.4] dovecot_storage_version = 2.4.0
base_dir = {dir}/run
state_dir = {dir}/state
instance_name = {name}
log_path = {dir}/log
[2.3] login_log_format_elements = user=<%u> method=%m rport=%b mpid=%e
[2.4] login_log_format_elements = user=<%{{user}}> method=%{{mechanism}} rport=%{{remote_port}} mpid=%{{mail_pid}}
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
[2.3] disable_plaintext_auth = no
[2.4] auth_allow_cleartext = yes
[2.3] auth_username_format = %Ln
[2.4] auth_username_format = %{{user | username | lower}}
first_valid_uid = 1
[2.3] mail_location = maildir:~/Maildir{location}
[2.4] mail_driver = maildir
[2.4] mail_path = ~/Maildir
[2.4] mail_index_path = {indexes}
mail_max_userip_connections = {connections}
default_vsz_limit = 1 G
default_client_limit = {clients}
default_process_limit = {connections}
passdb passwd-file {{
[2.3]   driver = passwd-file
[2.3]   args = {dir}/users
[2.4]   passwd_file_path = {dir}/users
}}
userdb passwd-file {{
[2.3]   driver = passwd-file
[2.3]   args = {dir}/users
[2.4]   passwd_file_path = {dir}/users
}}
service imap-login {{
[2.3]   service_count = 0
[2.4]   restart_request_count = unlimited
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
[2.3]   service_count = 0
[2.4]   restart_request_count = unlimited
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
"""


def free_ports(*names):
    """One for each name. Somebody else may take one before it is used."""
    sockets = {name: socket.socket() for name in names}
    for s in sockets.values():
        s.bind(("127.0.0.1", 0))
    ports = {name: s.getsockname()[1] for name, s in sockets.items()}
    for s in sockets.values():
        s.close()
    return ports


class Dovecot:
    """with Dovecot(directory, accounts) as server: server.imap(account), server.pop3(account), server.lmtp()."""

    name = "dovecot"

    def __init__(self, directory, accounts, indexes="", extra="", **settings):
        """directory: made here, removed by the caller. indexes: where they are, if not beside the mail, or "MEMORY";
        extra: blocks of configuration (namespaces, plugins), with lines for one version only as `only` knows them;
        settings: its keys, as lock_method="dotlock"."""
        self.dir = os.path.abspath(directory)
        self.accounts = accounts
        self.indexes, self.extra, self.settings = indexes, extra, settings
        self.allowed = [STOPPED, STOOD_STILL]  # what may be in its log although it is a warning or an error
        self.ports, self.process, self.talks = {}, None, []

    def __enter__(self):
        os.makedirs(self.dir, mode=0o755, exist_ok=True)
        os.chmod(self.dir, 0o755)
        try:
            while not until("dovecot to answer", self._state) == "answers":
                self._end()
                self._start()
        except BaseException:
            self._end()
            print(self.logged())
            raise
        return self

    def __exit__(self, kind, *_):
        for talk in self.talks:
            talk.close()
        self._end()
        if kind is None:
            assert not self.trouble(), self.logged()
        else:
            print(self.logged())

    # -- the processes

    def _write(self):
        with open(os.path.join(self.dir, "users"), "w", encoding="utf-8") as f:
            for a in self.accounts:
                f.write(f"{a.name}:{{PLAIN}}{PASSWORD}:{a.uid}:{a.uid}::{a.home}::\n")
        os.chmod(os.path.join(self.dir, "users"), 0o644)
        with open(os.path.join(self.dir, "dovecot.conf"), "w", encoding="utf-8") as f:
            text = CONF.format(
                dir=self.dir,
                name=os.path.basename(self.dir),
                indexes=self.indexes,
                location=self.indexes and f":INDEX={self.indexes}",
                connections=CONNECTIONS,
                clients=4 * CONNECTIONS,
                **self.ports,
            )
            more = "".join(f"{k} = {v}\n" for k, v in self.settings.items())
            f.write(only("dovecot", text + more + self.extra))

    def _start(self):
        self.ports = free_ports("imap", "pop3", "lmtp")
        self._write()
        command = [INSIDE, "dovecot", "dovecot", "-F", "-c", os.path.join(self.dir, "dovecot.conf")]
        with open(os.path.join(self.dir, "output"), "wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def _state(self):
        """Does it have its ports and answer? None: not yet. "other ports": to be started, with other ones."""
        if not self.process:
            return "other ports"
        if self.process.poll() is not None:
            assert IN_USE in self.logged(), self.logged()
            os.unlink(os.path.join(self.dir, "log"))
            return "other ports"
        if STARTED not in self.logged():
            return None
        try:
            with socket.create_connection(("127.0.0.1", self.ports["imap"]), WAIT_S) as s:
                return "answers" if b"OK" in s.recv(4096) else None
        except OSError:
            return None

    def _end(self):
        process, self.process = self.process, None
        if process and process.poll() is None:
            with self._held(process.pid):
                space = self._space(process.pid)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(WAIT_S)
                    until("the last of dovecot's processes to end", lambda: not self._left(space))
                finally:
                    for pid in self._left(space):
                        os.kill(pid, signal.SIGKILL)

    @staticmethod
    @contextlib.contextmanager
    def _held(pid):
        """Its mount namespace is kept: the kernel gives the number of one that is gone to the next, another test's."""
        try:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        except OSError:
            yield  # it ended
            return
        try:
            yield
        finally:
            os.close(fd)

    @staticmethod
    def _space(pid):
        try:
            return os.readlink(f"/proc/{pid}/ns/mnt")
        except OSError:
            return None  # it ended

    def _left(self, space):
        """The processes in the mount namespace that was made for it."""
        if not space or space == self._space("self"):
            return []
        return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self._space(pid) == space]

    # -- what it says

    def logged(self):
        return logs(self.dir)

    def trouble(self):
        """Its warnings and errors."""
        lines = [line for line in self.logged().splitlines() if TROUBLE.search(line)]
        return [line for line in lines if not any(allowed.search(line) for allowed in self.allowed)]

    # -- clients

    def _connect(self, protocol, who):
        s = socket.create_connection(("127.0.0.1", self.ports[protocol]), WAIT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = Talk(s, name=f"dovecot's {protocol} of {who}")
        self.talks.append(talk)
        return talk

    def imap(self, account):
        talk = self._connect("imap", account.name)
        talk.line()
        answer = talk.imap(f"LOGIN {account.name} {PASSWORD}")
        assert b" OK " in answer[-1], answer
        return talk

    def pop3(self, account):
        talk = self._connect("pop3", account.name)
        for line in [talk.line(), *talk.pop3(f"USER {account.name}"), *talk.pop3(f"PASS {PASSWORD}")]:
            assert line.startswith(b"+OK"), line
        return talk

    def pid_of(self, talk):
        """The process that serves an imap() or pop3()."""
        login = re.compile(rf"(?:Login|Logged in): .*\brport={talk.source.getsockname()[1]}, mpid=(\d+)")

        def serving():
            """The port may have been a session's before, whose process is gone."""
            return [int(pid) for pid in login.findall(self.logged())[-1:] if os.path.exists(f"/proc/{pid}")]

        return until("the login in the log", serving)[0]

    def lmtp(self):
        """Greeted; lmtp_deliver() speaks on."""
        talk = self._connect("lmtp", "nobody")
        lmtp_answer(talk, b"220")
        talk.send(b"LHLO client\r\n")
        lmtp_answer(talk, b"250")
        return talk


def lmtp_answer(talk, code):
    """One answer, of one or more lines."""
    while (line := talk.line())[3:4] == b"-":
        pass
    assert line.startswith(code + b" "), line
    return line


def lmtp_deliver(talk, data, *accounts):
    """One message to each of them; accepted for all. data: lines ending with CR LF."""
    talk.send(b"MAIL FROM:<sender@example.org>\r\n")
    lmtp_answer(talk, b"250")
    for a in accounts:
        talk.send(f"RCPT TO:<{a.name}>\r\n".encode())
        lmtp_answer(talk, b"250")
    talk.send(b"DATA\r\n")
    lmtp_answer(talk, b"354")
    talk.send(data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
    for _ in accounts:
        lmtp_answer(talk, b"250")

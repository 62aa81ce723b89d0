# SPDX-License-Identifier: GPL-2.0-or-later
"""Delivery agents that are run once a message, and fetchers: each with a deliver(message, account...) that returns when the
message is delivered, and fails if the agent does. Those of Postfix and Exim are in mta.py."""

import itertools
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

from dovecot import PASSWORD, Dovecot, lmtp_deliver
from place import HOOKS, SENDER, Inside, accounts, as_account, run, write
from talk import Account
from versions import only


class Agent:
    """place: where the accounts are; tree: through which the agent sees them; hook: is the hook in its configuration?"""

    group = None  # of build/deps
    bind = None  # where it looks for its configuration, if that can't be told it
    has_hook = True
    breaks_lines = False  # breaks endless ones, each time elsewhere, with and without maildex

    def __init__(self, place, tree, hook=False):
        self.place, self.tree, self.hook = place, tree, hook
        self.homes = accounts(tree)
        self.dir = os.path.join(place.dir, f"{type(self).__name__}-{os.path.basename(tree)}")
        os.mkdir(self.dir, 0o755)
        self.inside = Inside(self.dir, self.group, self.homes, self.bind) if self.group else None
        self.argv = self.inside.argv if self.inside else []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        """Writes its configuration."""

    def close(self):
        if self.inside:
            self.inside.close()

    def maildir(self, name):
        return os.path.join(self.homes[name].home, "Maildir")

    def file(self, name, content, mode=0o644, owner=0):
        return write(os.path.join(self.dir, name), content, mode, owner)

    def deliver(self, message, *names):
        for name in names:
            self.deliver_one(message, self.homes[name])

    def deliver_all(self, messages, name):
        """At once, as far as the agent can."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda message: self.deliver(message, name), messages))

    def deliver_one(self, message, account):
        raise NotImplementedError

    def mailfilter(self, account):
        """For maildrop, with our hook or as it was without: readable by its owner only, as maildrop wants it."""
        if self.hook:
            lines = [f'MAILDEX_NOTIFY="{self.place.notify}"', f'include "{HOOKS}/maildrop"']
        else:
            lines = ['to "$DEFAULT"']
        lines = [f'DEFAULT="{account.home}/Maildir"', *lines, ""]
        return self.file(f"mailfilter.{account.name}", "\n".join(lines), 0o600, account.uid)

    def wrapped(self, name, *command):
        """The command behind hooks/deliver."""
        if not self.hook:
            return list(command)
        return ["env", f"MAILDEX_NOTIFY={self.place.notify}", f"{HOOKS}/deliver", self.maildir(name), *command]


class Maildrop(Agent):
    group = "agents"  # for the accounts: maildrop itself is the system's

    def start(self):
        self.filters = {a.name: self.mailfilter(a) for a in self.homes.values()}

    def deliver_one(self, message, account):
        run([*self.argv, *as_account(account), "maildrop", self.filters[account.name]], message)


class Procmail(Agent):
    group = "agents"

    def start(self):
        hook = f"MAILDEX_NOTIFY={self.place.notify}\nINCLUDERC={HOOKS}/procmail\n" if self.hook else ""
        self.rc = self.file("procmailrc", f"{hook}LOGFILE=$HOME/procmail.log\nDEFAULT=$HOME/Maildir/\n")

    def deliver_one(self, message, account):
        run([*self.argv, *as_account(account), "procmail", "-t", "-f", SENDER, self.rc], message)


LDA = """[2.4] dovecot_config_version = 2.4.0
[2.4] dovecot_storage_version = 2.4.0
base_dir = {dir}/run
log_path = {dir}/log
[2.3] mail_location = maildir:~/Maildir
[2.4] mail_driver = maildir
[2.4] mail_path = ~/Maildir
stats_writer_socket_path =
postmaster_address = postmaster@example.org
"""


class DovecotLda(Agent):
    group = "dovecot"

    def start(self):
        self.conf = self.file(
            "dovecot.conf",
            only("dovecot", LDA.format(dir=self.dir)),
        )
        self.file("log", "", 0o666)

    def deliver_one(self, message, account):
        lda = self.wrapped(account.name, "/usr/lib/dovecot/dovecot-lda", "-c", self.conf, "-f", SENDER)
        run([*self.argv, *as_account(account), *lda], message)
        with open(os.path.join(self.dir, "log"), encoding="utf-8") as f:
            log = f.read()
        assert "Warning" not in log and "Error" not in log, log


def dovecot(directory, served):
    # Without statistics: at its end a process of Dovecot may wait for them in vain, and says so.
    return Dovecot(os.path.join(directory, "dovecot"), served, stats_writer_socket_path="").__enter__()


class DovecotLmtp(Agent):
    """A real master with its lmtp service."""

    has_hook = False

    def start(self):
        self.server = dovecot(self.dir, list(self.homes.values()))

    def close(self):
        if hasattr(self, "server"):
            self.server.__exit__(None, None, None)

    def deliver(self, message, *names):
        talk = self.server.lmtp()
        lmtp_deliver(talk, message.replace(b"\n", b"\r\n"), *(self.homes[n] for n in names))
        talk.close()


class Fetcher(Agent):
    """Messages come from a real POP3 server: Dovecot's, over Maildirs that are no part of any tree here."""

    group = "agents"

    def start(self):
        source = os.path.join(self.dir, "source")
        self.source, self.number = [], itertools.count()
        for a in self.homes.values():
            home = os.path.join(source, a.name)
            for half in ("new", "cur", "tmp"):
                os.makedirs(os.path.join(home, "Maildir", half))
            run(["chown", "-R", f"{a.uid}:{a.uid}", home])
            self.source.append(Account(a.name, a.uid, home))
            # Where fetchers keep what they remember.
            os.mkdir(os.path.join(self.dir, a.name), 0o700)
            os.chown(os.path.join(self.dir, a.name), a.uid, a.uid)
        self.server = dovecot(self.dir, self.source)
        self.port = self.server.ports["pop3"]

    def close(self):
        try:
            if hasattr(self, "server"):
                self.server.__exit__(None, None, None)
        finally:
            super().close()

    def remote(self, message, name):
        """Mail for the account arrives at the server."""
        account = next(a for a in self.source if a.name == name)
        file = f"{1500000000 + next(self.number)}.M1P1.host"
        new = os.path.join(account.home, "Maildir", "new", file)
        with open(new, "xb") as f:
            f.write(message)
        os.chown(new, account.uid, account.uid)

    def left(self, name):
        """Messages that are still at the server."""
        account = next(a for a in self.source if a.name == name)
        return [n for half in ("new", "cur") for n in os.listdir(os.path.join(account.home, "Maildir", half))]

    def fetch(self, name):
        raise NotImplementedError

    def deliver_all(self, messages, name):
        """One process fetches them all."""
        for message in messages:
            self.remote(message, name)
        self.fetch(name)
        assert not self.left(name)

    def deliver_one(self, message, account):
        self.deliver_all([message], account.name)

    def maildrop(self, name):
        return ["/usr/bin/maildrop", self.mailfilter(self.homes[name])]


class Fetchmail(Fetcher):
    """Delivers by maildrop."""

    breaks_lines = True

    def fetch(self, name):
        account, state = self.homes[name], os.path.join(self.dir, name)
        mda = " ".join(self.maildrop(name))
        rc = self.file(
            f"{name}/fetchmailrc",
            f'set idfile "{state}/ids"\nset pidfile "{state}/pid"\n'
            f"poll 127.0.0.1 service {self.port} protocol pop3\n"
            f'user {name} there with password {PASSWORD} is {name} here mda "{mda}" fetchall no keep sslproto ""\n',
            0o600,
            account.uid,
        )
        said = run([*self.argv, *as_account(account), "fetchmail", "-f", rc, "--nodetach", "--nosyslog"])
        assert "not deleted" not in said and "rror" not in said, said


class Getmail(Fetcher):
    """Delivers to a Maildir by itself."""

    has_hook = False

    def destination(self, name):
        return f"type = Maildir\npath = {self.maildir(name)}/\n"

    def fetch(self, name):
        account, state = self.homes[name], os.path.join(self.dir, name)
        rc = self.file(
            f"{name}/getmailrc",
            f"[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {self.port}\nusername = {name}\n"
            f"password = {PASSWORD}\n[destination]\n{self.destination(name)}"
            "[options]\ndelete = true\nread_all = true\nverbose = 0\n",
            0o600,
            account.uid,
        )
        # getmail misses the end of a child that is quicker than itself, and waits for minutes, with and without maildex.
        # On one processor, first come, first served, it waits before its child begins.
        slow_child = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "chrt", "--fifo", "1"]
        said = run([*self.argv, *slow_child, *as_account(account), "getmail", f"--getmaildir={state}", f"--rcfile={rc}"])
        assert said == "", said


class GetmailMaildrop(Getmail):
    """Delivers by maildrop."""

    has_hook = True

    def destination(self, name):
        program, *args = self.maildrop(name)
        return f"type = MDA_external\npath = {program}\narguments = {tuple(args)!r}\n"


class GetmailDeliver(Getmail):
    """Delivers by a program without a hook of its own, behind hooks/deliver."""

    has_hook = True

    def destination(self, name):
        program, *args = self.wrapped(name, shutil.which("deliverquota.maildrop", path="/usr/sbin"), self.maildir(name))
        program = shutil.which(program)
        return f"type = MDA_external\npath = {program}\narguments = {tuple(args)!r}\n"

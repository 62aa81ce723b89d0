# SPDX-License-Identifier: GPL-2.0-or-later
"""Postfix (its master and all that it starts) and Exim, as their packages have them, with configuration, queue and log of
their own; fed by their sendmail programs."""

import os
import re
import subprocess

from agents import Agent
from daemon import WAIT_S, logs, until
from place import HOOKS, SENDER, run

MAIN = """
compatibility_level = 3.7
queue_directory = {dir}/queue
data_directory = {dir}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.example.org
mydestination = example.org
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
message_size_limit = 20000000
mailbox_size_limit = 0
home_mailbox = Maildir/
virtual_mailbox_domains = virtual.example.org
virtual_mailbox_base = {tree}
virtual_mailbox_limit = 0
virtual_minimum_uid = 100
virtual_mailbox_maps = texthash:{dir}/boxes
virtual_uid_maps = texthash:{dir}/ids
virtual_gid_maps = texthash:{dir}/ids
"""

MASTER = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
local unix - n n - - local
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Agent):
    """Delivers to home_mailbox by local(8); has no hook there."""

    group = "postfix"
    domain = "example.org"
    has_hook = False

    def main(self):
        return ""

    def master(self):
        return ""

    def start(self):
        self.directories()
        self.file("boxes", "".join(f"{n}@{self.domain} {n}/Maildir/\n" for n in self.homes))
        self.file("ids", "".join(f"{n}@{self.domain} {a.uid}\n" for n, a in self.homes.items()))
        self.file("main.cf", MAIN.format(dir=self.dir, tree=self.tree) + self.main())
        self.file("master.cf", MASTER + self.master())
        # It waits a second or two for files that somebody may be writing to.
        for name in ("boxes", "ids", "main.cf", "master.cf"):
            os.utime(os.path.join(self.dir, name), (0, 0))
        with open(os.path.join(self.dir, "output"), "wb") as out:
            self.process = subprocess.Popen(
                [*self.argv, "/usr/lib/postfix/sbin/master", "-d", "-c", self.dir], stdout=out, stderr=out
            )
        until("Postfix to answer", self._answers)

    def directories(self):
        """As `postfix check` would make them; it runs hundreds of programs for that."""
        queue = os.path.join(self.dir, "queue")
        for d in ("", "pid"):
            os.mkdir(os.path.join(queue, d), 0o755)
        own = "active bounce corrupt defer deferred flush hold incoming private saved trace".split()
        for d in own:
            os.mkdir(os.path.join(queue, d), 0o700)
        os.mkdir(os.path.join(self.dir, "data"), 0o700)
        run([*self.argv, "chown", "postfix:", f"{self.dir}/data", *(f"{queue}/{d}" for d in own)])
        for d, mode in (("public", "2710"), ("maildrop", "1730")):
            run([*self.argv, "install", "-d", "-o", "postfix", "-g", "postdrop", "-m", mode, f"{queue}/{d}"])

    def _answers(self):
        assert self.process.poll() is None, self.logged()
        return os.path.exists(os.path.join(self.dir, "queue", "public", "pickup"))

    def close(self):
        # Its master takes a second to end when asked to; the queue is empty.
        super().close()
        if hasattr(self, "process"):
            self.process.wait(WAIT_S)

    def logged(self):
        return logs(self.dir)

    def queued(self):
        """Files of messages that it still has."""
        found = []
        for queue in ("maildrop", "incoming", "active", "deferred", "bounce", "defer", "corrupt", "hold"):
            for top, _, files in os.walk(os.path.join(self.dir, "queue", queue)):
                found += [os.path.join(top, n) for n in files]
        return found

    def submit(self, message, *names):
        to = [f"{n}@{self.domain}" for n in names]
        run([*self.argv, "sendmail", "-C", self.dir, "-i", "-f", SENDER, "-B8BITMIME", *to], message)

    def finish(self):
        def done():
            log = self.logged()
            assert not re.search("status=(deferred|bounced)|warning:|error:|fatal:|panic:", log), log
            return not self.queued()

        until("Postfix's queue to be empty", done)

    def deliver(self, message, *names):
        self.submit(message, *names)
        self.finish()


class PostfixVirtual(Postfix):
    """Delivers by virtual(8)."""

    domain = "virtual.example.org"


class PostfixCommand(Postfix):
    """local(8) runs maildrop."""

    has_hook = True

    def main(self):
        for a in self.homes.values():
            self.mailfilter(a)
        return f"mailbox_command = /usr/bin/maildrop {self.dir}/mailfilter.$USER\n"


class PostfixDeliver(Postfix):
    """local(8) runs a program that has no hook, behind hooks/deliver."""

    has_hook = True

    def main(self):
        command = '/usr/sbin/deliverquota.maildrop "$HOME/Maildir"'
        if self.hook:
            command = f'/usr/bin/env MAILDEX_NOTIFY={self.place.notify} {HOOKS}/deliver "$HOME/Maildir" {command}'
        return f"mailbox_command = {command}\n"


class PostfixPipe(Postfix):
    """pipe(8) runs deliverquota for the virtual mailboxes of one user, with the hook."""

    domain = "virtual.example.org"
    has_hook = True

    def main(self):
        return "virtual_transport = maildex\nmaildex_destination_recipient_limit = 1\n"

    def master(self):
        to = f"{self.tree}/${{user}}/Maildir"
        command = f"/usr/sbin/deliverquota.maildrop {to}"
        if self.hook:
            command = f"/usr/bin/env MAILDEX_NOTIFY={self.place.notify} {HOOKS}/deliver {to} {command}"
        return f"maildex unix - n n - - pipe flags=DORX user=anna argv={command}\n"


EXIM = """
{macros}
spool_directory = {dir}/spool
log_file_path = {dir}/spool/log.%s
primary_hostname = mail.example.org
qualify_domain = example.org
domainlist local_domains = example.org
keep_environment =
begin routers
users:
  driver = accept
  domains = +local_domains
  check_local_user
  transport = maildirs
begin transports
maildirs:
  driver = appendfile
  maildir_format
  directory = $home/Maildir
  directory_mode = 0700
  mode = 0600
  return_path_add
  envelope_to_add
{hook}
begin retry
* * F,1h,1m
"""


class Exim(Agent):
    """With another configuration (-C) than the packaged path it gives up being root, so ours lies there."""

    group = "exim"
    bind = "/etc/exim4"

    def start(self):
        os.mkdir(os.path.join(self.dir, "spool"), 0o755)
        run([*self.argv, "chown", "Debian-exim:", os.path.join(self.dir, "spool")])
        macros = f"MAILDEX_NOTIFY = {self.place.notify}" if self.hook else ""
        hook = f"  .include {HOOKS}/exim" if self.hook else ""
        self.file("exim4.conf", EXIM.format(dir=self.dir, macros=macros, hook=hook))

    def deliver(self, message, *names):
        to = [f"{n}@example.org" for n in names]
        run([*self.argv, "exim4", "-odf", "-oi", "-f", SENDER, *to], message)
        until("Exim's queue to be empty", self._done)

    def _done(self):
        log = self.logged()
        assert not re.search(r" (==|\*\*) |Frozen|[Ee]rror|fail|unable|panic", log), log
        return not os.listdir(os.path.join(self.dir, "spool", "input"))

    def logged(self):
        text = ""
        for name in ("main", "panic", "reject"):
            path = os.path.join(self.dir, "spool", f"log.{name}")
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as f:
                    text += f.read()
        return text

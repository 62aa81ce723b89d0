# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: what they are (README.md has the language), and how one is played in a world: on a plain tree, or through
maildexfs."""

import contextlib
import dataclasses
import datetime
import difflib
import hashlib
import os
import re
import shlex
import tempfile
import time

import trees
from courier import Courier
from daemon import until
from dovecot import Dovecot
from host import Maildex
from talk import TOP

FOLDER = os.path.join(TOP, "tests/servers/transcripts")
LINE = re.compile(r"(?:\[(?P<server>\w+)\] *)?(?P<what>(?:imap|pop)\d*(?:@\w+)?[>?=]|!|<) ?(?P<rest>.*)")
LITERAL = re.compile(r"\{mail (?P<tag>[\w-]+)(?: (?P<mb>\d+)MB)?\}|\{text (?P<text>[^}]*)\}")
POP_MULTILINE = re.compile(r"(?i)(LIST|UIDL|CAPA)$|(RETR|TOP) ")
LONG = 20000
TAG_NS = 10**6  # a shown mtime is at most that much older than the server's (law: rule 6)
CLOCK_REALTIME_COARSE = 5  # the clock that mtimes are taken from
EARLY_S = 3  # what the clock gave a server before we looked at it
LATE_S = 60  # Dovecot counts up from it, one a mailbox


@dataclasses.dataclass
class Step:
    number: int  # of the line in the file
    what: str
    rest: str
    expected: list  # of (number, pattern)


class Transcript:
    def __init__(self, path):
        self.path, self.steps = path, []
        self.head = {"servers": "courier dovecot", "tree": "standard", "courier": "", "dovecot": ""}
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                self._line(number, line.rstrip("\n"))
        self.servers = self.head["servers"].split()

    def _line(self, number, line):
        if not line.strip() or line.startswith("#"):
            return
        where = f"{self.path}:{number}"
        key, _, value = line.partition(":")
        if key in self.head and not self.steps:
            self.head[key] += ("\n" if key in ("courier", "dovecot") else "") + value.strip()
            if key in ("servers", "tree"):
                self.head[key] = value.strip()
            return
        match = LINE.fullmatch(line)
        assert match, f"{where}: not understood: {line}"
        if match["what"] == "<":
            assert self.steps, f"{where}: nothing before it"
            self.steps[-1][1].expected.append((match["server"], number, match["rest"]))
        else:
            self.steps.append((match["server"], Step(number, match["what"], match["rest"], [])))

    def steps_for(self, server):
        return [step for only, step in self.steps if only in (None, server)]


def transcripts():
    """All files of the folder, for each server that they are for."""
    for kind in ("imap", "pop3"):
        for name in sorted(os.listdir(os.path.join(FOLDER, kind))):
            t = Transcript(os.path.join(FOLDER, kind, name))
            for server in t.servers:
                yield t, server


# -- what may differ between two runs


class Masks:
    """What a server takes from its clock. Each is masked only if it is a time of this run."""

    def __init__(self, started, paths):
        self.started, self.paths = started, paths

    def _now(self, seconds):
        return self.started - EARLY_S <= seconds <= time.time() + LATE_S

    def _paths(self, text):
        for path in self.paths:
            text = text.replace(path, "TREE")
        return text

    def _number(self, match):
        n = int(match[2])
        # Courier counts UIDVALIDITY from a later year.
        return match[1] + "NOW" if self._now(n) or self._now(n + 10**9) else match[0]

    def _hex(self, match):
        return match[1] + "NOW" if self._now(int(match[2], 16)) else match[0]

    def file(self, text):
        """Of a file on disk: UIDVALIDITY of mailboxes that were made in this run."""
        text = self._paths(text)
        text = re.sub(r"(?m)(^1 )(\d{9,10})(?= \d+$)", self._number, text)  # courierimapuiddb
        text = re.sub(r"(?m)(^/\d+ \d+ )(\d{9,10})$", self._number, text)  # courierpop3dsizelist, its first line
        text = re.sub(r"(?m)( \d+:)(\d{9,10})(?=:\d+$)", self._number, text)  # its others
        text = re.sub(r"^()([0-9a-f]{8})$", self._hex, text)  # dovecot-uidvalidity
        return re.sub(r"(?m)(^3 V)(\d{10})( N\d+) G[0-9a-f]{32}$", self._uidlist, text)

    def _uidlist(self, match):
        """Dovecot's random GUID of a mailbox comes with it, if the mailbox is new."""
        return f"3 VNOW{match[3]} GNEW" if self._now(int(match[2])) else match[0]

    def name(self, text):
        """Of a file's name."""
        text = re.sub(r"(/courierimapkeywords/\.)(\d{7})(?=\.\d)", self._five_minutes, text)
        return re.sub(r"(/dovecot-uidvalidity\.)([0-9a-f]{8})$", self._hex, text)

    def _five_minutes(self, match):
        return match[1] + "NOW" if self._now(int(match[2]) * 300 + 300) or self._now(int(match[2]) * 300) else match[0]

    def answer(self, line):
        """Of what a server said."""
        if len(line) > LONG:
            return f"{len(line)} bytes {hashlib.sha256(line).hexdigest()} {line[-40:]}"  # a message: nothing to mask
        text = self._paths(line.decode("utf-8", "backslashreplace"))
        text = re.sub(r"((?:UIDVALIDITY|APPENDUID|COPYUID) )(\d+)", self._number, text)
        text = re.sub(r"(?<=\")([ \d]\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4})(?=\")", self._internaldate, text)
        text = re.sub(r"(UID\d+-)(\d+)", self._number, text)  # Courier's UIDL
        text = re.sub(r"(^\d+ [0-9a-f]{8})([0-9a-f]{8})", self._hex, text)  # Dovecot's UIDL
        return re.sub(r" \(\d\.\d{3} \+ \d\.\d{3}(?: \+ \d\.\d{3})? secs\)", "", text)  # how long it took Dovecot

    def _internaldate(self, match):
        at = datetime.datetime.strptime(match[1].strip(), "%d-%b-%Y %H:%M:%S %z")
        return "NOW" if self._now(at.timestamp()) else match[1]


# -- worlds


class World:
    """A tree, and where servers see it. `low`: the tree itself, whatever is mounted."""

    def __init__(self, name, kind):
        self.name, self.kind, self.host = name, kind, None

    @contextlib.contextmanager
    def made(self):
        with contextlib.ExitStack() as stack:
            self.host = stack.enter_context(Maildex())
            root, born = self.host.root, None
            if self.name == "same":
                self.host.conf["mount"] = root
            tree = trees.Tree(root, self.kind)
            born = time.time_ns() - 1
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, fd)
            tree.top = f"/proc/{os.getpid()}/fd/{fd}"  # below the mount too, where it is on the same path
            self.top = root if self.name == "plain" else self.host.conf["mount"]
            if self.name != "plain":
                self.host.start()
                self.host.fs_start()
            yield tree, born

    def unmount(self):
        if self.host.fs:
            self.host.fs_stop()


# -- playing


class Player:
    """One transcript, one server, one world. After play(): said, the answers; files, what is left on disk."""

    def __init__(self, transcript, server, world):
        self.transcript, self.kind, self.world = transcript, server, world
        self.talks, self.said, self.files = {}, [], []
        self.waiting, self.heard = {}, {}  # by connection: what came while it idles; what was not yet looked at

    def play(self):
        with self.world.made() as (self.tree, born), tempfile.TemporaryDirectory(prefix="maildex-server-") as run:
            os.chmod(run, 0o755)
            self.accounts = self.tree.accounts(self.world.top)
            self.masks = Masks(time.time(), [self.world.top, run])
            with open(os.path.join(run, "shared-index"), "w", encoding="utf-8") as f:
                bob = self.accounts["bob"]
                f.write(f"bob\t{bob.uid}\t{bob.uid}\t{bob.home}\tMaildir\n")  # of Courier
            with self._server(run) as self.server:
                for step in self.transcript.steps_for(self.kind):
                    self._step(step)
                self._log_out()
            if self.world.host.fs:
                below, above = (self._files(top, born, False) for top in (self.tree.top, self.world.top))
                same(f"{self.world.name}: below the mount", below, f"{self.world.name}: through it", above)
            self.world.unmount()
            self.files = self._files(self.tree.top, born)
        return self

    def _files(self, top, born, halves=True):
        return trees.Files(top, born, self.masks).lines(halves)

    def _server(self, run):
        config = self.transcript.head[self.kind].strip().replace("{top}", self.world.top).replace("{run}", run)
        accounts, directory = list(self.accounts.values()), os.path.join(run, "server")
        if self.kind == "courier":
            return Courier(directory, accounts, **dict(line.split("=", 1) for line in config.splitlines()))
        return Dovecot(directory, accounts, extra=DOVECOT + config + "\n")

    # -- steps

    def _step(self, step):
        where = f"{self.transcript.path}:{step.number}"
        try:
            if step.what == "!":
                self._foreign(*shlex.split(step.rest))
                return
            if step.what.endswith("="):
                self._wait(step.what[:-1], step.rest)
                return
            lines = self._command(step.what[:-1], step.rest)
        except AssertionError as e:
            raise AssertionError(f"{where} ({self.kind}, {self.world.name}): {step.what} {step.rest}\n{e}") from e
        if step.what.endswith(">") and not self._is_fine(step.what, lines):
            raise AssertionError(f"{where} ({self.kind}, {self.world.name}): refused: {''.join(lines)[-LONG:]}")
        self.said += [f"{step.number}: {step.what} {step.rest}", *lines]
        self._expect(step, lines)

    def _expect(self, step, lines):
        """Each pattern is in what this connection has said since its last one."""
        who = step.what[:-1]
        self.heard[who] = self.heard.get(who, "") + "".join(lines)
        for server, number, pattern in step.expected:
            if server in (None, self.kind):
                where = f"{self.transcript.path}:{number} ({self.kind}, {self.world.name})"
                assert re.search(pattern, self.heard[who]), f"{where}: was not said:\n{self.heard[who][-LONG:]}"
        if step.expected:
            self.heard[who] = ""

    def _wait(self, who, pattern):
        """While it idles: until it says so by itself."""
        while not self.waiting[who] or not re.search(pattern, self.masks.answer(self.waiting[who][-1])):
            self.waiting[who].append(self.talks[who].answer())

    @staticmethod
    def _is_fine(what, lines):
        """Without lines: it idles."""
        if what.startswith("pop"):
            return lines[0].startswith("+OK")
        return not lines or re.match(r"a\d+ OK", lines[-1])

    def _talk(self, who):
        if who not in self.talks:
            protocol, _, account = who.partition("@")
            start = self.server.imap if protocol.startswith("imap") else self.server.pop3
            self.talks[who] = start(self.accounts[account or "ann"])
        return self.talks[who]

    def _command(self, who, text):
        talk = self._talk(who)
        if who.startswith("pop"):
            lines = talk.pop3(text, bool(POP_MULTILINE.match(text)))
        elif text == "IDLE":
            self.waiting[who] = talk.idle()
            return []
        elif text == "DONE":
            lines = self.waiting.pop(who) + talk.done()
        else:
            lines = talk.imap(LITERAL.sub("{}", text), *map(self._literal, LITERAL.finditer(text)))
        if text in ("LOGOUT", "QUIT"):
            self.talks.pop(who).close()
        return [self.masks.answer(line) for line in lines]

    @staticmethod
    def _literal(match):
        if match["tag"] is None:
            return match["text"].encode()
        return trees.message(match["tag"], "appended", int(match["mb"] or 0) << 20).replace(b"\n", b"\r\n")

    def _log_out(self):
        for who in list(self.talks):
            self.said += [f"end: {who}", *self._command(who, "QUIT" if who.startswith("pop") else "LOGOUT")]

    # -- what others do below

    def _foreign(self, verb, *args):
        account = "ann"
        if verb.startswith("@"):
            account, (verb, *args) = verb[1:], args
        folders = [] if verb == "quota" else [args[0], *args[2:]] if verb == "move" else [args[0]]
        self._tick(account, folders)
        action = {
            "deliver": self.tree.deliver,
            "flag": lambda a, f, tag, flags="": self.tree.flag(a, f, tag, flags),
            "remove": self.tree.remove,
            "move": self.tree.move,
            "folder": self.tree.make_folder,
            "quota": self.tree.quota,
        }[verb]
        action(account, *args)
        self._shown(account, folders)

    def _halves(self, account, folders):
        return [self.tree.maildir(account, f, half) for f in folders for half in ("new", "cur")]

    def _tick(self, account, folders):
        """The clock that makes mtimes has moved since the last change: two changes in one tick are one to a server that
        looks in between, also on a plain tree."""
        paths = [p for p in self._halves(account, folders) if os.path.exists(p)]
        last = max((os.stat(p).st_mtime_ns for p in paths), default=0)
        until("the clock to move", lambda: time.clock_gettime_ns(CLOCK_REALTIME_COARSE) > last)

    def _shown(self, account, folders):
        """A stat through the mount may be `revalidate` old, as on NFS. Dovecot lists only if what stat says has changed;
        Courier always lists."""
        seen = not self.world.host.fs or self.kind == "courier"
        for low in () if seen else self._halves(account, folders):
            up = low.replace(self.tree.top, self.world.top)
            until(
                f"{up} to show its mtime", lambda: 0 <= os.stat(low).st_mtime_ns - os.stat(up).st_mtime_ns < TAG_NS
            )


# Its folders are named as Courier's are, so that transcripts can be the same.
DOVECOT = """
namespace inbox {
  inbox = yes
  prefix = INBOX.
  separator = .
}
"""


def same(name, left, other, right):
    """Fails with the lines that differ."""
    if left != right:
        diff = difflib.unified_diff(left, right, name, other, n=2, lineterm="")
        raise AssertionError("\n".join(line.rstrip("\r\n")[:2000] for line in diff))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: what they are (README.md has the language), and how one is played."""

import dataclasses
import os
import re
import shlex
import tempfile
import time

import trees
from compared import LONG, Files, Masks, same
from courier import Courier
from dovecot import Dovecot
from place import Place
from talk import TOP
from versions import version

FOLDER = os.path.join(TOP, "tests/servers/transcripts")
LINE = re.compile(
    r"(?:\[(?P<server>\w+)(?: (?P<version>[\d.]+))?\] *)?(?P<what>(?:imap|pop)\d*(?:@\w+)?[>?=]|!|<) ?(?P<rest>.*)"
)
STILL_AT_IT = re.compile(r"\* OK (\[INPROGRESS\] )?Hang in there")  # Dovecot, every 10 s
LITERAL = re.compile(r"\{mail (?P<tag>[\w-]+)(?: (?P<mb>\d+)MB)?\}|\{text (?P<text>[^}]*)\}")
POP_MULTILINE = re.compile(r"(?i)(LIST|UIDL|CAPA)$|(RETR|TOP) ")

# Its folders are named as Courier's are, so that transcripts can be the same.
DOVECOT = """
namespace inbox {
  inbox = yes
  prefix = INBOX.
  separator = .
}
"""


@dataclasses.dataclass
class Step:
    number: int  # of the line in the file
    what: str
    rest: str
    expected: list  # of ((server, version), number, pattern)


def is_for(who, server):
    """who: (server, version), each None if it is any."""
    return who[0] in (None, server) and who[1] in (None, version(server))


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
            self.steps[-1][1].expected.append((match.group("server", "version"), number, match["rest"]))
        else:
            step = Step(number, match["what"], match["rest"], [])
            self.steps.append((match.group("server", "version"), step))

    def steps_for(self, server):
        return [step for who, step in self.steps if is_for(who, server)]


def transcripts():
    """All files of the folder, for each server that they are for."""
    for kind in ("imap", "pop3"):
        for name in sorted(os.listdir(os.path.join(FOLDER, kind))):
            t = Transcript(os.path.join(FOLDER, kind, name))
            for server in t.servers:
                yield t, server


class Player:
    """One transcript, one server, one way to use the tree. After play(): said, the answers; files, what is left."""

    def __init__(self, transcript, server, way):
        self.transcript, self.kind, self.way = transcript, server, way
        self.talks, self.said, self.files = {}, [], []
        self.waiting, self.heard = {}, {}  # by connection: what came while it idles; what was not yet looked at

    def play(self):
        with Place(self.transcript.head["tree"]) as self.place:
            with tempfile.TemporaryDirectory(prefix="maildex-server-") as run, self.place.used(self.way) as self.top:
                os.chmod(run, 0o755)
                self.accounts = self.place.tree.accounts(self.top)
                self.masks = Masks(time.time(), [self.top, run])
                with self._server(run) as self.server:
                    for step in self.transcript.steps_for(self.kind):
                        self._step(step)
                    self._log_out()
                if self.place.host.fs:
                    below, above = (self._files(top, False) for top in (self.place.tree.top, self.top))
                    same(f"{self.way}: below the mount", below, f"{self.way}: through it", above)
            self.files = self._files(self.place.tree.top)
        return self

    def _files(self, top, halves=True):
        return Files(top, self.place.born_ns, self.masks).lines(halves)

    def _server(self, run):
        config = self.transcript.head[self.kind].strip().replace("{top}", self.top).replace("{run}", run)
        accounts, directory = list(self.accounts.values()), os.path.join(run, "server")
        if self.kind == "courier":
            with open(os.path.join(run, "shared-index"), "w", encoding="utf-8") as f:
                f.write("".join(f"{a.name}\t{a.uid}\t{a.uid}\t{a.home}\tMaildir\n" for a in accounts))
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
            raise AssertionError(f"{where} ({self.kind}, {self.way}): {step.what} {step.rest}\n{e}") from e
        if step.what.endswith(">") and not self._is_fine(step.what, lines):
            raise AssertionError(f"{where} ({self.kind}, {self.way}): refused: {''.join(lines)[-LONG:]}")
        self.said += [f"{step.number}: {step.what} {step.rest}", *lines]
        self._expect(step, lines)

    def _expect(self, step, lines):
        """Each pattern is in what this connection has said since its last one."""
        here = step.what[:-1]
        self.heard[here] = self.heard.get(here, "") + "".join(lines)
        for who, number, pattern in step.expected:
            if is_for(who, self.kind):
                where = f"{self.transcript.path}:{number} ({self.kind}, {self.way})"
                assert re.search(pattern, self.heard[here]), f"{where}: was not said:\n{self.heard[here][-LONG:]}"
        if step.expected:
            self.heard[here] = ""

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
        return [line for line in map(self.masks.answer, lines) if not STILL_AT_IT.match(line)]

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
        tree = self.place.tree
        action = {
            "deliver": tree.deliver,
            "flag": tree.flag,
            "remove": tree.remove,
            "move": tree.move,
            "folder": tree.make_folder,
            "quota": tree.quota,
        }[verb]
        folders = [] if verb == "quota" else [args[0], *args[2:]] if verb == "move" else [args[0]]
        self.place.change(account, folders, lambda: action(account, *args))
        if self.kind == "dovecot":  # lists only if stat tells of a change; Courier always lists
            self.place.shown(account, folders)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Busy IMAP sessions that know what the right answers are. Each works on messages of its own in mailboxes that it
shares with others, so that everything it asks has one right answer whatever the others do; and it reads what is
delivered.

Every message has a name of its own in X-Id; a copy has the name of its original. The ledger of an account is kept by
all who work on it: which message a UID is, and what must be in each folder at the end."""

import collections
import dataclasses
import random
import re
import threading

FOLDERS = ("INBOX", "Other")
SYSTEM = ("\\Seen", "\\Answered", "\\Flagged", "\\Draft")
KEYWORD = "$Busy"
MANY = 30  # messages of its own in a folder: then it rather expunges
WEIGHTS = {
    "fetch": 30, "store": 20, "append": 12, "read": 12, "noop": 10, "copy": 6, "expunge": 6, "search": 6, "move": 6,
    "select": 4,
}  # fmt: skip
FETCHED = re.compile(rb"^\* \d+ FETCH ", re.I)
UID = re.compile(rb"[ (]UID (\d+)")
FLAGS = re.compile(rb"[ (]FLAGS \(([^)]*)\)")
X_ID = re.compile(rb"X-Id: (\S+)")
COPYUID = re.compile(rb"\[COPYUID (\d+) (\d+) (\d+)\]")
APPENDUID = re.compile(rb"\[APPENDUID (\d+) (\d+)\]")
VALIDITY = re.compile(rb"\[UIDVALIDITY (\d+)\]")
# Dovecot's answer, as RFC 2180 has it, where another session has just expunged one of the messages.
GONE_MEANWHILE = b"[EXPUNGEISSUED]"


def message(name):
    """The message of that name, with LF."""
    rng = random.Random(name)
    body = "".join(f"{name} {rng.random()}\n" for _ in range(rng.choice((3, 10, 40, 200))))
    return f"From: a@example.org\nTo: b@example.org\nSubject: {name}\nX-Id: {name}\n\n{body}".encode()


def crlf(data):
    return data.replace(b"\n", b"\r\n")


def server_folder(server, folder):
    """What the server calls it."""
    return "INBOX." + folder if server.name == "courier" and folder != "INBOX" else folder


def fetched(lines):
    """{uid: line} of the FETCH answers with a UID."""
    found = ((UID.search(line), line) for line in lines if FETCHED.match(line))
    return {int(uid[1]): line for uid, line in found if uid}


def flags_of(line):
    """Without \\Recent; None if there are none in it."""
    found = FLAGS.search(line)
    return None if not found else set(found[1].decode().split()) - {"\\Recent"}


class Ledger:
    def __init__(self, account):
        self.account, self.lock = account, threading.Lock()
        self.ids, self.validity = {}, {}
        self.seen = set()  # delivered messages that somebody marked as read: (folder, id)

    def is_at(self, folder, uid, name):
        """A server said so. A UID never is another message."""
        with self.lock:
            known = self.ids.setdefault((folder, uid), name)
        assert known == name, f"{self.account.name} {folder}: UID {uid} was {known}, is {name}"

    def validity_is(self, folder, number):
        with self.lock:
            known = self.validity.setdefault(folder, number)
        assert known == number, f"{self.account.name} {folder}: UIDVALIDITY was {known}, is {number}"


@dataclasses.dataclass
class Mine:
    name: str
    flags: set
    copied: bool = False  # or is a copy


class Busy:
    """One of them; name: its own among all."""

    def __init__(self, server, ledger, name, folders=FOLDERS):
        self.server, self.ledger, self.name, self.folders = server, ledger, name, folders
        self.rng, self.made, self.commands = random.Random(name), 0, 0
        self.mine = {f: {} for f in folders}  # folder: {uid: Mine}
        self.talk, self.folder, self.exists = None, None, 0

    def __str__(self):
        return f"{self.name} of {self.ledger.account.name} in {self.folder}"

    # -- its session

    def login(self):
        self.talk = self.server.imap(self.ledger.account)
        self.select("INBOX")

    def logout(self):
        self.command("LOGOUT")
        self.talk.close()
        self.talk = None

    def command(self, text, *literals, refusal=None):
        """Must be answered OK; or with this refusal: then returns None."""
        lines = self.talk.imap(text, *literals)
        self.commands += 1
        for line in lines:
            self._count(line)
        ok = lines[-1].split(b" ", 2)[1] == b"OK"
        assert ok or (refusal and refusal in lines[-1]), f"{self}: {text}: {lines[-1]}"
        bad = [line for line in lines[:-1] if line.upper().startswith((b"* BYE", b"* NO", b"* BAD"))]
        assert not bad or text == "LOGOUT", f"{self}: {text}: {bad}"
        return lines if ok else None

    def _count(self, line):
        """EXISTS never falls but by EXPUNGE."""
        words = line.split(None, 3)
        if len(words) < 3 or words[0] != b"*" or not words[1].isdigit():
            return
        n = int(words[1])
        if words[2] == b"EXISTS":
            assert n >= self.exists, f"{self}: EXISTS fell from {self.exists} to {n}"
            self.exists = n
        elif words[2] == b"EXPUNGE":
            assert 1 <= n <= self.exists, f"{self}: EXPUNGE {n} of {self.exists}"
            self.exists -= 1

    def select(self, folder):
        self.folder, self.exists = folder, 0
        lines = self.command(f"SELECT {server_folder(self.server, folder)}")
        self.ledger.validity_is(folder, int(VALIDITY.search(b"".join(lines))[1]))

    # -- what it does

    def step(self):
        mine = self.mine[self.folder]
        what = self.rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
        if what not in ("noop", "read", "select") and not mine:
            what = "append"
        elif what in ("append", "copy") and len(mine) >= MANY:
            what = "expunge"
        getattr(self, "do_" + what)()
        return what

    def any_of_mine(self):
        uid = self.rng.choice(sorted(self.mine[self.folder]))
        return uid, self.mine[self.folder][uid]

    def other(self):
        return self.rng.choice(self.folders)

    def elsewhere(self):
        return next(f for f in self.folders if f != self.folder)

    def check(self, uid, line, body=False):
        """An answer about a message of its own."""
        m = self.mine[self.folder][uid]
        assert flags_of(line) == m.flags, f"{self}: UID {uid} {m}: {line[:300]}"
        assert X_ID.search(line)[1].decode() == m.name, f"{self}: UID {uid} {m}: {line[:300]}"
        if body:
            assert crlf(message(m.name)) in line, f"{self}: UID {uid} {m}: {line}"

    def do_fetch(self):
        uid, _ = self.any_of_mine()
        body = self.rng.random() < 0.5
        lines = self.command(f"UID FETCH {uid} (UID FLAGS BODY.PEEK[{'' if body else 'HEADER.FIELDS (X-Id)'}])")
        answers = [line for u, line in fetched(lines).items() if u == uid and X_ID.search(line)]
        assert len(answers) == 1, f"{self}: UID {uid}: {lines}"
        self.check(uid, answers[0], body)

    def do_store(self):
        uid, m = self.any_of_mine()
        how = self.rng.choice(("", "+", "-"))
        flags = set(self.rng.sample((*SYSTEM, KEYWORD), self.rng.randrange(1, 4)))
        lines = self.command(f"UID STORE {uid} {how}FLAGS ({' '.join(sorted(flags))})")
        m.flags = {"": flags, "+": m.flags | flags, "-": m.flags - flags}[how]
        said = fetched(lines).get(uid)
        assert said is None or flags_of(said) == m.flags, f"{self}: UID {uid} {m}: {lines}"

    def do_append(self):
        self.made += 1
        folder, name = self.other(), f"{self.name}-{self.made}"
        flags = set(self.rng.sample(SYSTEM, self.rng.randrange(3)))
        target = server_folder(self.server, folder)
        lines = self.command(f"APPEND {target} ({' '.join(sorted(flags))}) {{}}", crlf(message(name)))
        found = APPENDUID.search(lines[-1])
        self._arrived(folder, *map(int, found.groups()), Mine(name, flags))
        if folder == self.folder:
            self.command("NOOP")  # Courier's session knows it from then on

    def _arrived(self, folder, validity, uid, m):
        self.ledger.validity_is(folder, validity)
        self.ledger.is_at(folder, uid, m.name)
        assert uid not in self.mine[folder], f"{self}: UID {uid} of {folder} twice"
        self.mine[folder][uid] = m

    def _to_copy(self):
        """A copy keeps its file's name where that is free. One that comes to a folder where its name has been is to
        Dovecot an expunged file that was moved back ("Duplicate file entry"), on any filesystem: so each message is
        copied once, to the other folder."""
        uncopied = [uid for uid, m in self.mine[self.folder].items() if not m.copied]
        if not uncopied:
            return None, None
        uid = self.rng.choice(uncopied)
        self.mine[self.folder][uid].copied = True
        return uid, self.mine[self.folder][uid]

    def do_copy(self):
        uid, m = self._to_copy()
        if not m:
            return
        folder = self.elsewhere()
        lines = self.command(f"UID COPY {uid} {server_folder(self.server, folder)}")
        self._copied(uid, folder, lines, m)

    def _copied(self, uid, folder, lines, m):
        found = COPYUID.search(b"".join(lines))
        assert found and int(found[2]) == uid, f"{self}: UID {uid}: {lines}"
        self._arrived(folder, int(found[1]), int(found[3]), Mine(m.name, set(m.flags), True))

    def do_move(self):
        uid, m = self._to_copy()
        if not m:
            return
        folder = self.elsewhere()
        if b"MOVE" in self.server.capability.split():
            self._copied(uid, folder, self.command(f"UID MOVE {uid} {server_folder(self.server, folder)}"), m)
            del self.mine[self.folder][uid]
        else:
            self._copied(uid, folder, self.command(f"UID COPY {uid} {server_folder(self.server, folder)}"), m)
            self._expunge(uid)

    def do_expunge(self):
        self._expunge(self.any_of_mine()[0])

    def _expunge(self, uid):
        """UID EXPUNGE, or EXPUNGE, which may take others' too: whoever marks a message wants it gone."""
        self.command(f"UID STORE {uid} +FLAGS.SILENT (\\Deleted)")
        self.command(self.rng.choice((f"UID EXPUNGE {uid}", "EXPUNGE")))
        del self.mine[self.folder][uid]
        lines = self.command(f"UID FETCH {uid} (UID)")
        assert uid not in fetched(lines), f"{self}: UID {uid} is still there: {lines}"

    def do_search(self):
        uid, m = self.any_of_mine()
        for what in (f"HEADER X-Id {m.name}", f"UID {uid} NOT DELETED"):
            lines = self.command(f"UID SEARCH {what}")
            found = {int(n) for line in lines if line.startswith(b"* SEARCH") for n in line.split()[2:]}
            # A name is a part of others': w1-1 of w1-12.
            others = {u for u, o in self.mine[self.folder].items() if m.name in o.name}
            assert uid in found and found <= others, f"{self}: UID {uid} {m}: {what}: {lines}"

    def do_noop(self):
        self.command("NOOP")

    def do_select(self):
        self.select(self.other())

    def do_read(self):
        """The newest messages' headers; one that was delivered is read."""
        self.command("NOOP")
        if not self.exists:
            return
        newest = f"{max(1, self.exists - 9)}:{self.exists}"
        lines = self.command(f"FETCH {newest} (UID BODY.PEEK[HEADER.FIELDS (X-Id)])", refusal=GONE_MEANWHILE)
        delivered = []
        for uid, line in fetched(lines or []).items():
            name = X_ID.search(line)
            if name:
                self.ledger.is_at(self.folder, uid, name[1].decode())
                delivered += [(uid, name[1].decode())] if name[1].startswith(b"d") else []
        if delivered:
            uid, name = self.rng.choice(delivered)
            lines = self.command(f"UID FETCH {uid} (UID BODY[])")
            assert crlf(message(name)) in b"".join(lines), f"{self}: UID {uid} {name}: {lines}"
            self.command(f"UID STORE {uid} +FLAGS.SILENT (\\Seen)")
            with self.ledger.lock:
                self.ledger.seen.add((self.folder, name))


def expected(ledger, workers, delivered=()):
    """{folder: Counter of the names that must be in it}, and {(folder, uid): flags} of those that have one owner."""
    names = collections.defaultdict(collections.Counter)
    flags = {}
    names["INBOX"].update(delivered)
    for w in workers:
        if w.ledger is ledger:
            for folder, mine in w.mine.items():
                names[folder].update(m.name for m in mine.values())
                flags.update({(folder, uid): m.flags for uid, m in mine.items()})
    return names, flags

# SPDX-License-Identifier: GPL-2.0-or-later
"""No client ever downloads again what it has: one tree is used plain, then mounted, then plain, ... with mail coming and
going all the time, and UIDVALIDITY, every UID and every UIDL stay what they were."""

import functools
import os
import re

import pytest

from courier import Courier
from dovecot import Dovecot
from host import acting_as
from place import Place
from scratch import tmp_path  # noqa: F401 (a fixture)
from transcript import DOVECOT

FOLDERS = ("INBOX", "Archive", "Archive.2025", "Large")
# From a plain tree that servers used before, and from a mount under the very first look.
PATHS = [
    ("mixed", ("plain", "mounted", "plain", "same", "mounted", "plain")),
    ("fresh mixed", ("mounted", "plain", "same", "plain", "mounted", "same")),
]
LISTS = {
    "courier": ("courierimapuiddb", r"(\d+) (\S+)"),
    "dovecot": ("dovecot-uidlist", r"(\d+) [^:]*:(\S+)"),
}
MESSAGE_ID = re.compile(rb"(?mi)^Message-ID: <([^>]*)>")


def imap_name(folder):
    return folder if folder == "INBOX" else "INBOX." + folder


class Ledger:
    """What a client has seen, and what may never change."""

    def __init__(self):
        self.validity, self.messages, self.uidls, self.rows = {}, {}, {}, {}

    def validity_is(self, folder, validity):
        assert self.validity.setdefault(folder, validity) == validity, f"{folder} has another UIDVALIDITY"

    def message_is(self, folder, uid, message):
        """A UID is of one message, a message has one UID in a folder, and new ones have greater UIDs."""
        known = self.messages.setdefault(folder, {})
        if uid not in known:
            assert message not in known.values(), f"{folder}: {message} has a second UID, {uid}"
            assert uid > max(known, default=0), f"{folder}: {message} has UID {uid}, and there were greater ones"
        assert known.setdefault(uid, message) == message, f"{folder}: UID {uid} is of another message"

    def uidl_is(self, uidl, message):
        assert self.uidls.setdefault(uidl, message) == message, f"UIDL {uidl} is of another message"
        others = [u for u, m in self.uidls.items() if m == message and u != uidl]
        assert not others, f"{message} has UIDLs {uidl} and {others}"

    def row_is(self, file, base, uid):
        """What stands in a server's own list of UIDs."""
        assert self.rows.setdefault((file, base), uid) == uid, f"{file}: {base} has another UID"


class User:
    """ann, and others who change her mailbox at the same time."""

    def __init__(self, place, ledger, kind):
        self.place, self.ledger, self.kind, self.round = place, ledger, kind, 0
        self.uid = place.tree.uids["ann"]

    def on_disk(self, folder):
        """The Message-IDs that are there."""
        with acting_as(self.uid):
            return sorted(self._ids(folder))

    def _ids(self, folder):
        for half in ("new", "cur"):
            for name in os.listdir(self.place.tree.maildir("ann", folder, half)):
                with open(self.place.tree.maildir("ann", folder, half, name), "rb") as f:
                    yield MESSAGE_ID.search(f.read())[1].decode()

    def look(self, imap, folder):
        """All that a client that knows nothing asks for."""
        said = b"".join(imap.imap(f'SELECT "{imap_name(folder)}"'))
        self.ledger.validity_is(folder, int(re.search(rb"UIDVALIDITY (\d+)", said)[1]))
        lines = imap.imap("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
        assert lines[-1].split()[1] == b"OK", lines[-1]
        found = [(re.search(rb"UID (\d+)", line), MESSAGE_ID.search(line)) for line in lines]
        seen = {int(uid[1]): message[1].decode() for uid, message in found if message}
        for uid, message in sorted(seen.items()):
            self.ledger.message_is(folder, uid, message)
        assert sorted(seen.values()) == self.on_disk(folder)
        return seen

    def look_by_pop3(self, pop3):
        lines = pop3.pop3("UIDL", multiline=True)[1:-1]
        assert len(lines) == len(self.on_disk("INBOX"))
        for number, uidl in (line.split() for line in lines):
            top = b"".join(pop3.pop3(f"TOP {number.decode()} 0", multiline=True))
            self.ledger.uidl_is(uidl, MESSAGE_ID.search(top)[1].decode())

    def rows(self):
        """The server's own lists."""
        name, row = LISTS[self.kind]
        for folder in FOLDERS:
            file = self.place.tree.maildir("ann", folder, name)
            with acting_as(self.uid), open(file, encoding="utf-8") as f:
                rows = re.findall(f"(?m)^{row}$", f.read().split("\n", 1)[1])
            assert rows
            for uid, base in rows:
                self.ledger.row_is(file, base, int(uid))

    def elsewhere(self, folder, *actions):
        """Another host's doings."""
        for action, *args in actions:
            self.place.change("ann", [folder], functools.partial(action, "ann", folder, *args))
        if self.kind == "dovecot":  # lists only if stat tells of a change; Courier always lists
            self.place.shown("ann", [folder])

    def act(self, imap, folder):
        """Messages come, are marked and go, by this session and elsewhere."""
        tree, n, uids = self.place.tree, self.round, sorted(self.look(imap, folder))
        self.elsewhere(folder, (tree.deliver, f"d{n}a"), (tree.flag, f"s{20 + n}", "FS"[n % 2 :]))
        imap.imap(f"UID STORE {uids[1]},{uids[-1]} +FLAGS (\\Flagged)")
        imap.imap(f"UID STORE {uids[0]},{uids[2 + n]} +FLAGS.SILENT (\\Deleted)")
        assert imap.imap("EXPUNGE")[-1].split()[1] == b"OK"
        self.elsewhere(folder, (tree.remove, f"s{30 + n}"), (tree.deliver, f"d{n}b"))
        imap.imap("NOOP")
        imap.imap(f'APPEND "{imap_name(folder)}" {{}}', f"Message-ID: <a{n}.{folder}>\r\n\r\nx\r\n".encode())
        imap.imap("NOOP")
        self.look(imap, folder)

    def phase(self, server, account):
        self.round += 1
        with server.imap(account) as imap:
            for folder in ("INBOX", "Large"):
                self.act(imap, folder)
            copied = sorted(self.look(imap, "Archive"))[self.round]
            assert imap.imap(f"UID COPY {copied} INBOX.Archive.2025")[-1].split()[1] == b"OK"
        with server.pop3(account) as pop3:
            self.look_by_pop3(pop3)
            pop3.pop3("DELE 5")
            assert pop3.pop3("QUIT")[0].startswith(b"+OK")
        with server.pop3(account) as pop3:
            self.look_by_pop3(pop3)
            pop3.pop3("QUIT")
        with server.imap(account) as imap:
            for folder in FOLDERS:
                self.look(imap, folder)
            imap.imap("LOGOUT")
        self.rows()


def start(kind, directory, accounts):
    return Courier(directory, accounts) if kind == "courier" else Dovecot(directory, accounts, extra=DOVECOT)


@pytest.mark.parametrize("tree, ways", PATHS, ids=["from plain", "from mounted"])
@pytest.mark.parametrize("server", ["courier", "dovecot"])
def test_uids_are_for_ever(server, tree, ways, tmp_path):  # noqa: F811
    ledger = Ledger()
    os.chmod(tmp_path, 0o755)
    with Place(tree) as place:
        user = User(place, ledger, server)
        for number, way in enumerate(ways):
            with place.used(way) as top:
                account = place.tree.accounts(top)["ann"]
                with start(server, str(tmp_path / f"server{number}"), [account]) as running:
                    user.phase(running, account)
    assert len(ledger.messages["INBOX"]) > 50 and len(ledger.uidls) > 50

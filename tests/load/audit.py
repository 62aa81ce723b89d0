# SPDX-License-Identifier: GPL-2.0-or-later
"""At the end of a load: what a fresh session sees, what is on disk and what is in the server's own database are the
same, and nothing else than what the sessions did and what was delivered."""

import collections
import os
import re

import busy
from host import acting_as

LETTERS = {"F": "\\Flagged", "R": "\\Answered", "S": "\\Seen", "T": "\\Deleted", "D": "\\Draft"}
X_ID = re.compile(rb"^X-Id: (\S+)", re.M)


def _directory(maildir, folder):
    return maildir if folder == "INBOX" else os.path.join(maildir, "." + folder)


def on_disk(directory):
    """{base: (X-Id, flags)}; no message has two names."""
    found = {}
    for half in ("new", "cur"):
        for name in os.listdir(os.path.join(directory, half)):
            with open(os.path.join(directory, half, name), "rb") as f:
                data = f.read(4096)
            base, _, info = name.partition(":2,")
            assert base not in found, f"{directory}: {base} has two names"
            found[base] = (X_ID.search(data)[1].decode(), {LETTERS[c] for c in info if c in LETTERS})
    return found


def _unique(pairs, where):
    """{uid: base}; neither comes twice."""
    for what in zip(*pairs):
        twice = [x for x, n in collections.Counter(what).items() if n > 1]
        assert not twice, f"{where}: twice: {twice}"
    return dict(pairs)


def dovecot_uids(directory):
    """From dovecot-uidlist: "UID [Xextension...] :NAME" a line behind its head."""
    path = os.path.join(directory, "dovecot-uidlist")
    with open(path, encoding="ascii") as f:
        lines = f.read().splitlines()[1:]
    return _unique([(int(s.split(" ", 1)[0]), s.split(" :", 1)[1].split(":2,")[0]) for s in lines], path)


def courier_uids(directory):
    """From courierimapuiddb: "UID NAME" a line behind its head."""
    path = os.path.join(directory, "courierimapuiddb")
    with open(path, encoding="ascii") as f:
        lines = f.read().splitlines()[1:]
    return _unique([(int(uid), name) for uid, name in (s.split(" ", 1) for s in lines)], path)


def seen_by_server(server, account, folder, ledger):
    """{uid: (X-Id, flags)} as a fresh session is told."""
    session = busy.Busy(server, ledger, "audit")
    session.login()
    session.select(folder)
    lines = session.command("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Id)])")
    answers = [(int(busy.UID.search(s)[1]), s) for s in lines if busy.FETCHED.match(s)]
    session.logout()
    assert len(answers) == session.exists == len(dict(answers)), f"{account.name} {folder}: {len(answers)} answers"
    return {uid: (busy.X_ID.search(s)[1].decode(), busy.flags_of(s)) for uid, s in answers}


def _differ(what, wrong, right):
    lost, more = collections.Counter(right), collections.Counter(wrong)
    lost.subtract(wrong)
    more.subtract(right)
    return f"{what}: lost: {sorted((+lost).items())}, too many: {sorted((+more).items())}"


def audit(server, ledger, workers, delivered, maildir, folders=busy.FOLDERS):
    """maildir: below the mount. Returns how many messages there are."""
    names, flags = busy.expected(ledger, workers, delivered)
    count = 0
    for folder in folders:
        where, directory = f"{ledger.account.name} {folder}", _directory(maildir, folder)
        seen = seen_by_server(server, ledger.account, folder, ledger)
        with acting_as(ledger.account.uid):
            disk = on_disk(directory)
            database = {"courier": courier_uids, "dovecot": dovecot_uids}[server.name](directory)
        for what, found in (("session", seen), ("disk", disk)):
            have = collections.Counter(name for name, _ in found.values())
            assert have == names[folder], _differ(f"{where}, {what}", have, names[folder])
        for uid, (name, said) in seen.items():
            ledger.is_at(folder, uid, name)
            right = flags.get((folder, uid), {"\\Seen"} if (folder, name) in ledger.seen else set())
            assert said == right, f"{where}: UID {uid} {name} has flags {said}, not {right}"
            assert disk[database[uid]] == (name, said - {busy.KEYWORD}), (
                f"{where}: UID {uid} {name} is {database[uid]}: {disk[database[uid]]}"
            )
        count += len(seen)
    return count

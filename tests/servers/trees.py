# SPDX-License-Identifier: GPL-2.0-or-later
"""Mail trees that are the same each time they are made, byte for byte and second for second; what a delivery agent or
another host does to them below the server's feet; and what of a tree is compared.

A tree holds the homes of two accounts, ann and bob. A message has a tag, its name in transcripts: "s1", "s2", ... are
those that a folder is made with, oldest first; its file is TIME.MnPn.TAG[,S=SIZE][:2,FLAGS] and its Message-ID
<TAG.FOLDER@example.net>."""

import functools
import hashlib
import os
import random
import re
import textwrap

from talk import Account

UIDS = {"ann": 2101, "bob": 2102}
THEN = 1_600_000_000  # the time of all that is old, and UIDVALIDITY of mailboxes that were used before
VALIDITY = THEN + 1
FLAGS = ("S", "S", "", "RS", "FS", "S", "FRS", "DS", "PS", "")
# folder: messages in cur/, messages in new/
FOLDERS = {
    "INBOX": (40, 10),
    "Sent": (30, 0),
    "Drafts": (3, 0),
    "Trash": (5, 0),
    "Empty": (0, 0),
    "Archive": (150, 0),
    "Archive.2025": (60, 2),
    "Archive.2025.Q1": (20, 1),
    "Entw&APw-rfe": (4, 1),
}
KINDS = {
    "standard": FOLDERS,
    # A folder with more than window_min messages.
    "large": {"INBOX": (12, 3), "Large": (2500, 20)},
    "abandoned": {"INBOX": (2100, 500)},
    "mixed": {"INBOX": (40, 10), "Archive": (60, 2), "Archive.2025": (60, 5), "Large": (2100, 20)},
}
BOB = {"INBOX": (6, 2), "Team": (12, 3)}
SUBSCRIBED = ("Sent", "Drafts", "Trash", "Archive", "Archive.2025")
WORDS = "maildir listing server index folder message delivery queue kernel mailbox report meeting invoice lunch".split()
PEOPLE = ("Carol <carol@example.org>", '"Dave, the other" <dave@example.org>', "=?utf-8?q?Zo=C3=AB?= <zoe@example.net>")


def subdir(folder):
    """A folder's directory in the Maildir."""
    return "" if folder == "INBOX" else "." + folder


# -- messages


def _text(rng, lines):
    return "\n".join(textwrap.wrap(" ".join(rng.choices(WORDS, k=lines * 9)), 72)) + "\n"


def _body(rng, number, size):
    """Headers of a body and the body."""
    if size:
        line = "0123456789abcdef" * 4 + "\n"
        return f"Content-Type: text/plain\n\n{line * (size // len(line) + 1)}"
    kind = number % 5
    text = _text(rng, 3 + number % 7)
    if kind == 1:
        html = f"<html><body><p>{text}</p></body></html>\n"
        return (
            'Content-Type: multipart/alternative; boundary="=_b1"\n\n--=_b1\n'
            f"Content-Type: text/plain; charset=us-ascii\n\n{text}\n"
            f"--=_b1\nContent-Type: text/html\n\n{html}\n--=_b1--\n"
        )
    if kind == 3:
        inner = f"From: {PEOPLE[0]}\nSubject: inner {number}\nMessage-ID: <inner{number}@example.net>\n\n{text}"
        return (
            'Content-Type: multipart/mixed; boundary="=_b2"\n\nnot shown\n--=_b2\n\n'
            f"{text}\n--=_b2\nContent-Type: message/rfc822\n\n{inner}\n--=_b2\nContent-Type: application/octet-stream\n"
            f'Content-Transfer-Encoding: base64\nContent-Disposition: attachment; filename="a.bin"\n\n'
            f"{'QUJDREVGR0hJSktMTU5PUA==' * 3}\n--=_b2--\n"
        )
    return f"Content-Type: text/plain; charset=utf-8\n\n{text}{'grüße' if kind == 4 else ''}\n"


@functools.lru_cache(None)
def message(tag, folder="", size=0):
    """The message of that tag, as bytes with LF."""
    number = int(re.sub(r"\D", "", tag) or len(tag))
    rng = random.Random(f"{tag} {folder}")
    reply = f"In-Reply-To: <s{number - 1}.{folder}@example.net>\n" if number % 4 == 2 and folder else ""
    day, hour = 1 + number % 28, number % 24
    subject = f"Re: {WORDS[(number - 1) % 14]}" if reply else WORDS[number % 14]
    text = (
        f"Return-Path: <someone@example.org>\nReceived: by mail.example.net; {day:02} Sep 2020 {hour:02}:00:05 +0000\n"
        f"From: {PEOPLE[number % 3]}\nTo: ann@example.net\n{'Cc: bob@example.net' + chr(10) if number % 3 == 0 else ''}"
        f"Subject: {subject} {tag}\nDate: {day:02} Sep 2020 {hour:02}:{number % 60:02}:00 +0{number % 3}00\n"
        f"Message-ID: <{tag}.{folder}@example.net>\n{reply}MIME-Version: 1.0\n{_body(rng, number, size)}"
    )
    return text.encode()


# -- making a tree


class Tree:
    """The mail tree below `top`, which exists."""

    def __init__(self, top, kind="standard"):
        """kind: of KINDS; and words, "fresh": no server was there before; "shared": all homes are of one user, as on
        platforms with virtual ones."""
        words = set(kind.split())
        self.top, self.fresh, self.delivered = top, "fresh" in words, 0
        self.uids = {**UIDS, "bob": UIDS["ann"]} if "shared" in words else UIDS
        self._home("ann", next((KINDS[w] for w in words if w in KINDS), FOLDERS))
        self._home("bob", BOB)
        self._age()

    def accounts(self, homes):
        return {n: Account(n, u, os.path.join(homes, n)) for n, u in self.uids.items()}

    def maildir(self, account, folder="INBOX", *parts):
        return os.path.join(self.top, account, "Maildir", subdir(folder), *parts)

    def _home(self, account, folders):
        for folder, (cur, new) in folders.items():
            self.make_folder(account, folder)
            place = list(folders).index(folder)
            seeds = dict(self._seed(account, folder, place, n, n > cur) for n in range(1, cur + new + 1))
            if not self.fresh:
                self._uids(account, folder, seeds)
        for file, line in (("courierimapsubscribed", "INBOX.{}\n"), ("subscriptions", "{}\n")):
            text = "V\t2\n\n" if file == "subscriptions" else ""
            text += "".join(line.format(f.replace(".", "\t") if text else f) for f in SUBSCRIBED if f in folders)
            self.write(account, self.maildir(account, "INBOX", file), text.encode(), 0o644)

    def make_folder(self, account, folder):
        for part in ("", "new", "cur", "tmp"):
            path = self.maildir(account, folder, part)
            os.makedirs(path, 0o700)
            for p in (path, os.path.dirname(path)):
                os.chown(p, self.uids[account], self.uids[account])
        if folder != "INBOX":
            self.write(account, self.maildir(account, folder, "maildirfolder"), b"", 0o600)
        os.chown(os.path.join(self.top, account), self.uids[account], self.uids[account])

    def _seed(self, account, folder, place, number, is_new):
        """One message. Returns (base name, (what follows in its name, size with CRLF))."""
        tag = f"s{number}"
        data = message(tag, folder)
        base = f"{THEN + number}.M{number}P{place}.{tag}" + (f",S={len(data)}" if number % 3 else "")
        flags = "" if is_new else ":2," + FLAGS[number % len(FLAGS)]
        path = self.maildir(account, folder, "new" if is_new else "cur", base + flags)
        self.write(account, path, data, 0o600)
        os.utime(path, (THEN + number, THEN + number))
        return base, (flags, len(data) + data.count(b"\n"))

    def _uids(self, account, folder, seeds):
        """The UID lists of both servers, as if they had been there: all but the last ten messages are in them, and a
        UID between two was expunged; for Courier's pop3d with the messages' sizes."""
        known = list(enumerate(list(seeds)[: max(0, len(seeds) - 10)], 1))
        known = [(uid + (uid > 5), name) for uid, name in known]
        following = len(known) + 10
        guid = hashlib.md5(f"{account} {folder}".encode()).hexdigest()
        dovecot = f"3 V{VALIDITY} N{following} G{guid}\n" + "".join(f"{u} :{n}\n" for u, n in known)
        courier = f"1 {VALIDITY} {following}\n" + "".join(f"{u} {n}\n" for u, n in known)
        self.write(account, self.maildir(account, folder, "dovecot-uidlist"), dovecot.encode(), 0o600)
        self.write(account, self.maildir(account, folder, "courierimapuiddb"), courier.encode(), 0o644)
        if folder == "INBOX":
            sizes = "".join(f"{n}{seeds[n][0]} {seeds[n][1]} {u}:{VALIDITY}:0\n" for u, n in known)
            pop3 = f"/3 {following} {VALIDITY}\n" + sizes
            self.write(account, self.maildir(account, folder, "courierpop3dsizelist"), pop3.encode(), 0o644)

    def _age(self):
        """All directories and files that have no time of their own are old."""
        for path, dirs, files in os.walk(self.top, topdown=False):
            for name in files:
                p = os.path.join(path, name)
                if os.path.basename(path) not in ("new", "cur"):
                    os.utime(p, (THEN, THEN))
            os.utime(path, (THEN, THEN))

    def write(self, account, path, data, mode=0o600):
        with open(path, "xb") as f:
            f.write(data)
        os.chmod(path, mode)
        os.chown(path, self.uids[account], self.uids[account])
        return path

    # -- what others do to it

    def quota(self, account, definition):
        """A maildirsize as deliverquota makes it: the trash does not count."""
        size = count = 0
        for path, _, files in os.walk(self.maildir(account)):
            if os.path.basename(path) in ("new", "cur") and "/.Trash/" not in path:
                size += sum(os.stat(os.path.join(path, name)).st_size for name in files)
                count += len(files)
        text = f"{definition}\n{size} {count}\n"
        self.write(account, self.maildir(account, "INBOX", "maildirsize"), text.encode(), 0o644)

    def deliver(self, account, folder, tag, size=0):
        """As a delivery agent does: to tmp/, then to new/. Returns the path."""
        self.delivered += 1
        data = message(tag, folder, size)
        name = f"{THEN + 10**8 + self.delivered}.M{self.delivered}P1.{tag},S={len(data)}"
        path = self.write(account, self.maildir(account, folder, "tmp", name), data)
        os.utime(path, (THEN + 10**6 + self.delivered,) * 2)
        os.rename(path, self.maildir(account, folder, "new", name))
        return self.maildir(account, folder, "new", name)

    def find(self, account, folder, tag):
        """The file of a message: (half, name)."""
        for half in ("cur", "new"):
            for name in os.listdir(self.maildir(account, folder, half)):
                if re.fullmatch(rf"[^.]*\.[^.]*\.{re.escape(tag)}([,:].*)?", name):
                    return half, name
        raise AssertionError(f"no message {tag} in {folder}")

    def flag(self, account, folder, tag, flags=""):
        """Another host's server: flags as given, in cur/ from now on."""
        half, name = self.find(account, folder, tag)
        target = name.split(":")[0] + ":2," + "".join(sorted(flags))
        os.rename(self.maildir(account, folder, half, name), self.maildir(account, folder, "cur", target))

    def remove(self, account, folder, tag):
        os.unlink(self.maildir(account, folder, *self.find(account, folder, tag)))

    def move(self, account, folder, tag, target):
        half, name = self.find(account, folder, tag)
        os.rename(self.maildir(account, folder, half, name), self.maildir(account, target, half, name))

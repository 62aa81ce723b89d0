# SPDX-License-Identifier: GPL-2.0-or-later
"""What two runs of a server are compared by: what it said, and the files that it left; and what of these may differ."""

import datetime
import difflib
import hashlib
import os
import re
import stat
import time

from host import acting_as
from trees import THEN

LONG = 20000
EARLY_S = 3  # what the clock gave a server before we looked at it
LATE_S = 60  # Dovecot counts up from it, one a mailbox


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
        """Courier counts them, up to the end of those that run."""
        return match[1] + "NOW" if self.started - 300 <= int(match[2]) * 300 <= time.time() + 300 else match[0]

    def answer(self, line):
        """Of what a server said."""
        if len(line) > LONG:
            return f"{len(line)} bytes {hashlib.sha256(line).hexdigest()} {line[-40:]}"  # a message: nothing to mask
        text = self._paths(line.decode("utf-8", "backslashreplace"))
        text = re.sub(r"((?:UIDVALIDITY|APPENDUID|COPYUID) )(\d+)", self._number, text)
        text = re.sub(r"(?<=\")([ \d]\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4})(?=\")", self._internaldate, text)
        text = re.sub(r"(UID\d+-)(\d+)", self._number, text)  # Courier's UIDL
        text = re.sub(r"(^\d+ [0-9a-f]{8})([0-9a-f]{8})", self._hex, text)  # Dovecot's UIDL
        return re.sub(r" \(\d+\.\d{3}(?: \+ \d+\.\d{3})+ secs\)", "", text)  # how long it took Dovecot

    def _internaldate(self, match):
        at = datetime.datetime.strptime(match[1].strip(), "%d-%b-%Y %H:%M:%S %z")
        return "NOW" if self._now(at.timestamp()) else match[1]


# The part of a name that a server makes from the clock, its pid and the file's device and inode; names that we made
# have an older time.
MADE = re.compile(r"(?<!\w)(\d{10})\.(?:M\d+)?(?:P\d+|\d+_\d+)(?:V[0-9A-F]+)?(?:I[0-9A-F]+)?(?:_\d+)?\.[^\s,:/]*")
MADE_FROM = THEN + 10**8 + 10**6
# Files of Dovecot's that hold the times of directories, of its processes, and random numbers: that they are there,
# whose they are and their mode is compared.
BINARY = re.compile(r"dovecot\.((list\.)?index(\.log(\.2)?|\.cache|\.thread)?|mailbox\.log)$")


class Files:
    """All files of a tree in words. What was not changed since born_ns has the time that it was made with."""

    def __init__(self, top, born_ns, masks):
        self.top, self.born_ns, self.masks = top, born_ns, masks
        self.labels, self.found = {}, {}  # the latter by owner of the home
        for home in os.scandir(top):
            uid = home.stat().st_uid
            with acting_as(uid):
                self.found.setdefault(uid, []).extend(self._find(home.path))

    def _find(self, home):
        yield home
        for path, dirs, files in os.walk(home):
            yield from (os.path.join(path, n) for n in [*files, *dirs])
            if os.path.basename(path) in ("new", "cur"):
                for name in files:
                    self._label(os.path.join(path, name))

    def _label(self, path):
        """A made name means nothing; what the message is does."""
        made = MADE.match(os.path.basename(path))
        if made and int(made[1]) >= MADE_FROM:
            with open(path, "rb") as f:
                found = re.search(rb"(?mi)^Message-ID: <([^>]*)>", f.read(20000))
            self.labels[made[0]] = f"<{found[1].decode() if found else 'no Message-ID'}>"

    def _known(self, text):
        return MADE.sub(lambda m: m[0] if int(m[1]) < MADE_FROM else self.labels.get(m[0], "<gone>"), text)

    def _content(self, path, mode):
        if stat.S_ISDIR(mode):
            return "directory"
        if stat.S_ISLNK(mode):
            return "-> " + self.masks.file(os.readlink(path))
        if BINARY.search(path):
            return "binary"
        with open(path, "rb") as f:
            data = f.read()
        if os.path.basename(os.path.dirname(path)) in ("new", "cur", "tmp"):
            return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"
        text = data.decode("utf-8", "backslashreplace")
        if os.path.basename(path) == "dovecot-uidlist":
            text = self._uidlist(text, os.path.dirname(path))
        return self._known(self.masks.file(text))

    @staticmethod
    def _uidlist(text, folder):
        """What it says: Dovecot appends to it, and rewrites it without expunged messages and with another next UID only
        when it lists cur/ for other reasons, among them that two seconds went by since it last did."""
        head, *rows = text.splitlines()
        there = {n.split(":")[0] for half in ("new", "cur") for n in os.listdir(os.path.join(folder, half))}
        following = max(int(n) for n in [re.search(r" N(\d+)", head)[1], *(int(row.split()[0]) + 1 for row in rows)])
        kept = [row for row in rows if row.split(":")[1] in there]
        return "\n".join([re.sub(r" N\d+", f" N{following}", head), *kept])

    def lines(self, halves=True):
        """A line a file, sorted; without the times of new/ and cur/ if so wished."""
        out = []
        for uid, paths in self.found.items():
            with acting_as(uid):
                out += [self._line(path, halves) for path in paths]
        return sorted(out)

    def _line(self, path, halves):
        st = os.lstat(path)
        when = f"{st.st_mtime_ns / 1e9:.9f}" if st.st_mtime_ns < self.born_ns else "now"
        if not halves and os.path.basename(path) in ("new", "cur"):
            when = "-"
        name = self._known(self.masks.name(os.path.relpath(path, self.top)))
        links = "-" if stat.S_ISDIR(st.st_mode) else st.st_nlink
        owner = f"{stat.filemode(st.st_mode)} {st.st_uid}:{st.st_gid}"
        return f"{name}: {owner} links {links} {when} {self._content(path, st.st_mode)}"


def same(name, left, other, right):
    """Fails with the lines that differ."""
    if left != right:
        diff = difflib.unified_diff(left, right, name, other, n=2, lineterm="")
        raise AssertionError("\n".join(line.rstrip("\r\n")[:2000] for line in diff))

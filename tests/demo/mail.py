# SPDX-License-Identifier: GPL-2.0-or-later
"""Two identical trees of Maildirs, and whether they still are."""

import os
import re

from stack import Trouble

BIG = 100000
SMALL = {"anna": 40, "bert": 3, "empty": 0}
FOLDERS = {"": 1.0, ".Sent": 0.5, ".Archive.2025": 0.25}  # and how many messages, by the INBOX's
START = 1700000000
DELIVERED = re.compile(r"\d+\.M\d+P\d+V[0-9A-F]+I[0-9A-F]+_\d+\.[^,:]*")  # maildrop: time, pid, device, inode, host


def name_of(i):
    flags = ("S", "S", "", "S", "FS", "RS", "S", "")[i % 8]
    return f"{START + i * 31}.M{i * 7477 % 1000000:06}P{i % 10000:04}.mail-in{i % 8},S={len(text_of(i))}:2,{flags}"


def text_of(i):
    return (
        f"Return-Path: <sender{i % 97}@example.net>\nFrom: sender{i % 97}@example.net\nTo: info@example.org\n"
        f"Subject: message {i}\nMessage-ID: <{i}@example.net>\n\nThe text of message {i}.\n"
    )


class Trees:
    """The same mailboxes in each of `roots`."""

    def __init__(self, roots, owner):
        self.roots, self.owner = roots, owner
        self.original = set()  # names of messages that were there at first

    def make(self, progress):
        for root in self.roots:
            os.mkdir(root, 0o755)
        total = BIG + sum(int(n * share) for n in SMALL.values() for share in FOLDERS.values())
        done = 0
        for user, count in {"info": BIG, **SMALL}.items():
            for folder, share in FOLDERS.items() if user != "info" else (("", 1.0), (".Sent", 0.001)):
                done = self._fill(user, folder, int(count * share), done, total, progress)
        progress(total, total)

    def _fill(self, user, folder, count, done, total, progress):
        dirs = []
        for root in self.roots:
            maildir = os.path.join(root, user, "Maildir", folder)
            for sub in ("", "new", "cur", "tmp"):
                os.makedirs(os.path.join(maildir, sub), mode=0o700, exist_ok=True)
                os.chown(os.path.join(maildir, sub), self.owner.pw_uid, self.owner.pw_gid)
            os.chown(os.path.join(root, user), self.owner.pw_uid, self.owner.pw_gid)
            os.chmod(os.path.join(root, user), 0o700)
            if folder:
                self._write(os.path.join(maildir, "maildirfolder"), b"", 0)
            dirs.append(os.path.join(maildir, "cur"))
        for i in range(count):
            name, text = name_of(i), text_of(i).encode()
            self.original.add(name.split(":")[0])
            for d in dirs:
                self._write(os.path.join(d, name), text, i)
            done += 1
            if done % 500 == 0:
                progress(done, total)
        return done

    def _write(self, path, data, i):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.fchown(fd, self.owner.pw_uid, self.owner.pw_gid)
        os.utime(fd, ns=((START + i) * 10**9, (START + i) * 10**9 + 123456789))
        os.close(fd)

    # -- are they the same?

    def _content(self, path):
        """What may differ between two runs is named here: a time, a process, an inode."""
        with open(path, "rb") as f:
            data = f.read()
        if os.path.basename(path) == "courierimapuiddb":
            first, rest = data.decode().split("\n", 1)
            version, _, following = first.split()  # UIDVALIDITY is the time at which it was made
            data = f"{version} UIDVALIDITY {following}\n{DELIVERED.sub('DELIVERED', rest)}".encode()
        return data

    def _facts(self, path, name):
        """Owner, group, mode, links; size of files; and the mtime of messages that nobody wrote to."""
        st = os.lstat(path)
        facts = [st.st_uid, st.st_gid, oct(st.st_mode)]
        if not os.path.isdir(path):
            facts += [st.st_nlink, len(self._content(path)) if name == "courierimapuiddb" else st.st_size]
        if name.split(":")[0] in self.original:
            facts.append(st.st_mtime_ns)
        return facts

    def differences(self, progress):
        """Names, contents, modes, owners of both trees; returns (files compared, what differs)."""
        lists = []
        for root in self.roots:
            found = {}
            for top, dirs, files in os.walk(root):
                for name in dirs + files:
                    path = os.path.join(top, name)
                    key = os.path.join(os.path.relpath(top, root), name)
                    if name.split(":")[0] not in self.original:
                        key = DELIVERED.sub("DELIVERED", key)
                    if key in found:
                        raise Trouble(f"{root}: {key} is there twice")
                    found[key] = path
            lists.append(found)
        a, b = lists
        bad = [f"only in {self.roots[0]}: {k}" for k in sorted(a.keys() - b.keys())]
        bad += [f"only in {self.roots[1]}: {k}" for k in sorted(b.keys() - a.keys())]
        both = sorted(a.keys() & b.keys())
        for n, key in enumerate(both):
            name = os.path.basename(key)
            facts = [self._facts(x[key], name) for x in lists]
            if facts[0] != facts[1]:
                bad.append(f"{key}: {facts[0]} and {facts[1]}")
            elif os.path.isfile(a[key]) and self._content(a[key]) != self._content(b[key]):
                bad.append(f"{key}: the contents differ")
            if n % 500 == 0:
                progress(n, len(both))
        progress(len(both), len(both))
        return len(both), bad

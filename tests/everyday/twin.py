# SPDX-License-Identifier: GPL-2.0-or-later
"""One tree twice: on a plain local disk and on the mount. A tool does the same in both; then all that can be told apart
is compared: exit code, output, and every file that is left."""

import hashlib
import os
import shutil
import stat
import subprocess

from daemon import WAIT_S

NS = 10**9
EPOCH_NS = 1_600_000_000 * NS  # times of what fill() makes: long past, with nanoseconds
TAG_MAX_NS = 1_000_000  # by how much a half's mtime may be older than it is, right after changes (rule 6)
ENV = {
    "PATH": os.environ["PATH"],
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "xterm",
    "EMAIL": "u@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Facts(dict):
    """What a file is, as far as two trees can agree about it."""

    def __init__(self, path, st, links):
        kind = stat.S_IFMT(st.st_mode)
        super().__init__(mode=st.st_mode, uid=st.st_uid, gid=st.st_gid, rdev=st.st_rdev)
        self["xattrs"] = tuple((n, os.getxattr(path, n, follow_symlinks=False)) for n in listxattrs(path))
        if kind == stat.S_IFREG:
            with open(path, "rb") as f:
                self["content"] = hashlib.sha256(f.read()).hexdigest()
        if kind == stat.S_IFLNK:
            self["target"] = os.readlink(path)
        if kind != stat.S_IFDIR:
            self["size"], self["nlink"] = st.st_size, st.st_nlink
            self["same_as"] = links.setdefault((st.st_dev, st.st_ino), path)


def listxattrs(path):
    return sorted(os.listxattr(path, follow_symlinks=False))


def walk(top):
    """Relative paths of all below top, and "." for itself; in order."""
    yield "."
    for d, dirs, files in os.walk(top):
        dirs.sort()
        for n in sorted(dirs + files):
            yield os.path.relpath(os.path.join(d, n), top)


def facts(top, times="files"):
    """{path: Facts}; times: "files" or "all" (directories too) or "none"."""
    links, out = {}, {}
    for rel in walk(top):
        path = os.path.join(top, rel)
        st = os.lstat(path)
        out[rel] = f = Facts(path, st, links)
        if "same_as" in f:
            f["same_as"] = os.path.relpath(f["same_as"], top)
        if times == "all" or (times == "files" and not stat.S_ISDIR(st.st_mode)):
            f["mtime_ns"] = st.st_mtime_ns
    return out


def assert_same(a, b):
    assert a.keys() == b.keys(), f"only in one: {sorted(a.keys() ^ b.keys())}"
    for path, f in a.items():
        assert f == b[path], f"{path}: {dict(f.items() - b[path].items())} and {dict(b[path].items() - f.items())}"


class Twin:
    """plain: the tree on the local disk; mnt: the one on the mount; low: the same below it."""

    def __init__(self, m):
        self.m = m
        self.plain, self.mnt, self.low = os.path.join(m.dir, "plain"), m.conf["mount"], m.root
        os.mkdir(self.plain, 0o755)
        shutil.rmtree(m.path("u"), ignore_errors=True)

    # -- one tool, twice

    def run_in(self, top, *argv, env=None, cwd=".", stdin=None):
        done = subprocess.run(
            argv,
            cwd=os.path.join(top, cwd),
            env={**ENV, "HOME": self.m.dir, **(env or {})},
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, *argv, code=0, sort=False, **kw):
        """Runs it in both trees; all that it says is the same, and code its exit code. sort: it lists in the order of
        the directory, which is nobody's promise. Returns what it printed."""
        said = []
        for top in (self.plain, self.mnt):
            c, out, err = self.run_in(top, *argv, **kw)
            assert c == code, f"{argv} in {top}: exit {c}\n{out.decode()}{err.decode()}"
            said.append((sorted(out.splitlines()) if sort else out, err))
        assert said[0] == said[1], f"plain: {said[0]}\nmount: {said[1]}"
        return b"\n".join(said[0][0]) if sort else said[0][0]

    def each(self, what):
        """what(top) in both trees; returns both values."""
        return what(self.plain), what(self.mnt)

    # -- what is left

    def same(self, times="files", sub="."):
        """Both trees are the same, and the mount shows what is below it."""
        here = facts(os.path.join(self.mnt, sub), times)
        assert_same(facts(os.path.join(self.plain, sub), times), here)
        assert_same(facts(os.path.join(self.low, sub), times), here)
        self.true(sub)

    def halves(self):
        """Relative paths of all new/ and cur/ of Maildirs."""
        for rel in walk(self.low):
            d, name = os.path.split(rel)
            if name in ("new", "cur") and all(os.path.isdir(os.path.join(self.low, d, h)) for h in ("new", "cur")):
                yield rel

    def proven(self):
        """Lists until the mount knows that all its listings are right: from then on it shows the halves' own times."""
        for rel in self.halves():
            self.m.proven(rel)

    def true(self, sub="."):
        """Every number that stat tells through the mount is the lower file's; but a half that changed since it was
        last listed in peace has an mtime that is a little older, so that it goes with no other listing (rule 6)."""
        halves = set(self.halves())
        for rel in walk(os.path.join(self.low, sub)):
            rel = os.path.normpath(os.path.join(sub, rel))
            above, below = (os.lstat(os.path.join(t, rel)) for t in (self.mnt, self.low))
            for field in ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "blksize", "rdev", "ctime_ns"):
                a, b = getattr(above, "st_" + field), getattr(below, "st_" + field)
                assert a == b, f"{rel}: {field} is {a}, below it is {b}"
            late_ns = below.st_mtime_ns - above.st_mtime_ns
            if rel in halves:
                assert 0 <= late_ns <= TAG_MAX_NS, f"{rel}: mtime older by {late_ns} ns"
            else:
                assert late_ns == 0, f"{rel}: mtime older by {late_ns} ns"

    # -- what is in it at first

    def fill(self, messages=40, whole_seconds=False):
        """The same files in both trees; made below the mount, as if they had always been there."""
        for top in (self.plain, self.low):
            fill(top, messages, whole_seconds)


def message(i):
    return (
        f"From: Person {i} <p{i}@example.org>\nTo: u@example.org\nSubject: matter {i}\n"
        f"Date: Sun, 13 Sep 2020 12:{i // 60 % 60:02}:{i % 60:02} +0000\nMessage-ID: <m{i}@example.org>\n\n"
        f"This is message {i}.\n" + "filler\n" * (i % 7)
    ).encode()


def maildir(top, n):
    """A third of the messages in new/, two in cur/."""
    for half in ("new", "cur", "tmp"):
        os.makedirs(os.path.join(top, half), mode=0o700)
    for i in range(n):
        name = f"{1600000000 + i}.M{i}P1.host"
        if i % 3:
            name += ":2," + ("", "S", "RS", "FS")[i % 4]
        with open(os.path.join(top, "cur" if i % 3 else "new", name), "xb") as f:
            f.write(message(i))


def plain_dir(top):
    """One of everything that a directory may hold."""
    os.makedirs(os.path.join(top, "deep", "er"))
    os.makedirs(os.path.join(top, "empty"), mode=0o711)
    for i in range(20):
        with open(os.path.join(top, f"file{i:02}"), "xb") as f:
            f.write(bytes([i]) * (i * 997))
    with open(os.path.join(top, "deep", "er", "name with \xe4 and\n line"), "xb") as f:
        f.write(b"x")
    with open(os.path.join(top, "sparse"), "xb") as f:
        f.seek(1 << 20)
        f.write(b"end")
        f.truncate(3 << 20)
    os.link(os.path.join(top, "file01"), os.path.join(top, "deep", "hard1"))
    os.link(os.path.join(top, "file01"), os.path.join(top, "deep", "er", "hard2"))
    os.symlink("../file02", os.path.join(top, "deep", "soft"))
    os.symlink("nowhere", os.path.join(top, "dangling"))
    os.mkfifo(os.path.join(top, "fifo"), 0o640)
    os.setxattr(os.path.join(top, "file03"), "user.note", b"a\0b")
    os.setxattr(os.path.join(top, "deep"), "user.dir", b"d")
    os.chmod(os.path.join(top, "file04"), 0o4750)
    os.chmod(os.path.join(top, "deep", "er"), 0o1777)
    os.chown(os.path.join(top, "file05"), 1234, 5678)
    os.lchown(os.path.join(top, "deep", "soft"), 1234, 5678)


def fill(top, messages, whole_seconds):
    maildir(os.path.join(top, "u"), messages)
    maildir(os.path.join(top, "u", ".Sent"), messages // 4)
    os.link(
        os.path.join(top, "u", "cur", os.listdir(os.path.join(top, "u", "cur"))[0]),
        os.path.join(top, "u", ".Sent", "cur", "1500000000.M1P1.host:2,S"),
    )
    with open(os.path.join(top, "u", "dovecot-uidlist"), "xb") as f:
        f.write(b"3 V1 N1\n")
    plain_dir(os.path.join(top, "p"))
    age(top, whole_seconds)


def age(top, whole_seconds=False, first_ns=EPOCH_NS):
    """Gives everything a time of its own, in the past: the deepest first."""
    for i, rel in enumerate(sorted(walk(top), key=lambda p: (-p.count("/"), p))):
        ns = first_ns + i * NS + (0 if whole_seconds else 123_456_789 + i)
        os.utime(os.path.join(top, rel), ns=(ns, ns), follow_symlinks=False)

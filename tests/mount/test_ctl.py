# SPDX-License-Identifier: GPL-2.0-or-later
"""maildexctl against real daemons, a real mount and a real index."""

import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest

from daemon import BUILD, CUR, NEW, WAIT_S, Daemon, until, xxh3_listing

CTL = os.path.abspath(os.path.join(BUILD, "maildexctl"))
FS = os.path.abspath(os.path.join(BUILD, "maildexfs"))
KNOWS = " (the index knows: it will list this folder at its next opendir)"


class Host(Daemon):
    """maildexd, and maildexfs where a test asks for it, with one configuration."""

    def __init__(self, **conf):
        super().__init__(**conf)
        self.mount = os.path.join(self.dir, "mnt")
        self.conf["mount"] = self.mount
        os.mkdir(self.mount, 0o755)
        self.mounted = False
        self.command()

    def __exit__(self, *args):
        self.unmount()
        super().__exit__(*args)

    @property
    def file(self):
        return os.path.join(self.dir, "maildex.conf")

    def mount_fs(self):
        with open(self.log, "ab") as log:
            subprocess.run([FS, "-c", self.file], check=True, stderr=log, timeout=WAIT_S)
        self.mounted = True

    def unmount(self):
        if not self.mounted:
            return
        pid = int(self.json("status")[1]["maildexfs.pid"])
        subprocess.run(["umount", self.mount], check=True)
        self.mounted = False
        until("maildexfs to end", lambda: not os.path.exists(f"/proc/{pid}"))

    def ctl(self, *args, stdin=""):
        """Returns (exit code, standard output, standard error)."""
        done = subprocess.run(
            [CTL, "-c", self.file, *args],
            input=os.fsencode(stdin),
            capture_output=True,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def json(self, *args, stdin=""):
        code, out, _ = self.ctl(*args, "--json", stdin=stdin)
        return code, json.loads(out)


@pytest.fixture
def host():
    with Host() as h:
        h.maildir("u/Maildir", new=1, cur=3)
        h.maildir("u/Maildir/.Sent", cur=2)
        h.maildir("v/Maildir", cur=1)
        yield h


@pytest.fixture
def indexed(host):
    host.start()
    assert host.ctl("rebuild", "--all")[0] == 0
    return host


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["status", "x"],
        ["status", "--all"],
        ["serve", "nonsense"],
        ["serve", "--all"],
        ["rebuild"],
        ["rebuild", "--all", "u"],
        ["rebuild", "/etc"],
        ["rebuild", "../u"],
        ["verify"],
        ["verify", "--all", "u"],
        ["serve", "lower", "/etc"],
        ["--nonsense", "status"],
        ["-o", "nonsense=1", "status"],
    ],
)
def test_wrong_use(host, args):
    code, out, said = host.ctl(*args)
    assert code == 2 and out == "" and said != ""


def test_verify_refuses_what_is_no_mailbox(indexed):
    assert indexed.ctl("verify", "/etc")[0] == 2


def test_full_disk_behind_the_list(indexed):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([CTL, "-c", indexed.file, "verify", "--all"], stdout=full, check=False, timeout=WAIT_S)
    assert done.returncode == 3


# -- status


def test_status(host):
    code, out, _ = host.ctl("status")
    assert code == 3
    assert f"maildexd does not answer at {host.socket}" in out.splitlines()[0]
    assert f"maildexfs does not answer at {host.socket}.fs" in out.splitlines()[0]
    code, facts = host.json("status")
    assert code == 3 and not facts["healthy"] and not facts["maildexd.answers"] and not facts["maildexfs.answers"]

    host.start()
    assert host.ctl("rebuild", "--all")[0] == 0
    code, facts = host.json("status")
    assert code == 1 and facts["maildexd.answers"] and not facts["maildexfs.answers"]
    assert "maildexfs does not answer" in facts["reason"] and "maildexd does not" not in facts["reason"]

    host.mount_fs()
    code, facts = until("both to answer", lambda: healthy(host))
    assert facts["reason"] == "" and facts["maildexd.index.messages"] == 7
    assert facts["maildexd.state"] == "ok" and facts["maildexfs.mount"] == host.mount
    code, out, said = host.ctl("status")
    assert code == 0 and out.splitlines()[0] == "healthy" and said == ""
    assert f"maildexd at {host.socket}" in out.splitlines()

    before = facts["maildexfs.lower.getattrs"]
    assert len(os.listdir(os.path.join(host.mount, "u/Maildir/cur"))) == 3
    assert host.json("status")[1]["maildexfs.lower.getattrs"] > before


def healthy(host):
    code, facts = host.json("status")
    return (code, facts) if code == 0 else None


def test_status_of_a_tree_that_went_away(host):
    host.start()
    host.mount_fs()
    until("both to answer", lambda: healthy(host))
    os.rename(host.root, host.root + ".away")
    os.mkdir(host.root)
    code, facts = until("the other tree to be noticed", lambda: not_healthy(host))
    assert code == 1 and "tree" in facts["reason"]
    os.rmdir(host.root)
    os.rename(host.root + ".away", host.root)
    until("the tree to be back", lambda: healthy(host))


def not_healthy(host):
    code, facts = host.json("status")
    return (code, facts) if "tree" in facts["reason"] else None


# -- rebuild


def test_rebuild(host):
    assert host.ctl("rebuild", "--all")[0] == 3
    host.start()
    code, out, said = host.ctl("rebuild", "--all")
    assert (code, said) == (0, "") and out.startswith("3 folders, 7 messages, in ")
    assert set(host.names("u/Maildir", CUR)) == set(host.disk("u/Maildir", CUR))
    code, told = host.json("rebuild", "--all")
    assert code == 0 and told["ok"] and (told["folders"], told["messages"], told["failed"]) == (3, 7, 0)


def test_rebuild_of_some(host):
    host.start()
    code, out, _ = host.ctl("rebuild", "u")
    assert code == 0 and out.startswith("2 folders, 6 messages")
    assert host.row("v/Maildir", CUR) is None
    code, out, _ = host.ctl("rebuild", host.mount + "/v/Maildir", host.root + "/u/Maildir/.Sent/")
    assert code == 0 and out.startswith("2 folders, 3 messages")
    assert host.row("v/Maildir", CUR)["count"] == 1


def test_rebuild_of_what_is_not_there(host):
    host.start()
    code, out, said = host.ctl("rebuild", "v", "nobody/\x1b[2Jmail")
    assert code == 1 and out.startswith("1 folders, 1 messages") and "1 could not be read" in out
    assert "nobody/\\x1b[2Jmail" in said


def test_rebuild_on_a_terminal(host):
    host.start()
    ours, theirs = pty.openpty()
    with subprocess.Popen([CTL, "-c", host.file, "rebuild", "--all"], stdout=theirs, stderr=theirs) as p:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
        assert p.wait(WAIT_S) == 0
    os.close(ours)
    # a bar, wiped away before the last line
    assert b"] " in seen and b" messages" in seen and b"\r\x1b[K3 folders, 7 messages" in seen


def test_interrupted_rebuild(host):
    host.start()
    db = sqlite3.connect(host.index, isolation_level=None, timeout=WAIT_S)
    db.execute("BEGIN IMMEDIATE")  # nothing can be written, so it can't end
    command, pipe = [CTL, "-c", host.file, "rebuild", "--all"], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as p:
        until("the rebuild to be under way", lambda: running(host))
        p.send_signal(signal.SIGINT)
        out, said = p.communicate(timeout=WAIT_S)
        assert p.returncode == -signal.SIGINT
    assert b"'maildexctl rebuild --all' will resume" in said and b"in " not in out
    db.execute("ROLLBACK")
    db.close()
    until("the first rebuild to have stopped", lambda: not running(host))
    assert host.ctl("rebuild", "--all")[0] == 0
    assert host.row("v/Maildir", CUR)["count"] == 1


def running(host):
    return host.json("status")[1]["maildexd.rebuild.state"] != "idle"


# -- verify


def test_verify_without_an_index(host):
    code, _, said = host.ctl("verify", "--all")
    assert code == 3 and host.index in said
    code, _, said = host.ctl("-o", "index=", "verify", "--all")
    assert code == 3 and "no index" in said


def test_verify_without_a_tree(indexed):
    os.rename(indexed.root, indexed.root + ".away")
    code, out, said = indexed.ctl("verify", "--all")
    assert code == 3 and indexed.root in said and "difference" not in out
    os.mkdir(indexed.root)
    code, out, said = indexed.ctl("verify", "--all")
    assert code == 3 and "difference" not in out
    os.rmdir(indexed.root)
    os.rename(indexed.root + ".away", indexed.root)
    assert indexed.ctl("verify", "--all")[0] == 0


def test_verify_finds_nothing(indexed):
    summary = "3 folders, 7 messages compared, 0 differences (0 of them claimed as right), 0 not indexed\n"
    assert indexed.ctl("verify", "--all") == (0, summary, "")
    indexed.stop()
    assert indexed.ctl("verify", "--all") == (0, summary, "")
    code, told = indexed.json("verify", os.path.join(indexed.root, "v"), "u/Maildir/.Sent")
    assert code == 0 and told == {
        "differences": [],
        "folders": 2,
        "messages": 3,
        "claimed": 0,
        "not_indexed": 0,
        "unreadable": 0,
    }


def test_verify_of_a_stale_folder(indexed):
    """What was changed behind our back differs, and the index does not claim otherwise."""
    h = indexed
    h.maildir("w/Maildir", cur=1)
    os.unlink(h.path("u/Maildir/cur/1600000000.M1P1.host:2,S"))
    h.deliver("u/Maildir", "1600000009.odd\n\udcffname:2,", half="cur")
    os.rename(h.path("u/Maildir/cur/1600000001.M1P1.host:2,S"), h.path("u/Maildir/cur/1600000001.M1P1.host:2,RS"))
    shutil.copy(h.path("u/Maildir/cur/1600000002.M1P1.host:2,S"), h.path("u/Maildir/tmp/x"))
    os.rename(h.path("u/Maildir/tmp/x"), h.path("u/Maildir/cur/1600000002.M1P1.host:2,S"))
    shutil.rmtree(h.path("v"))
    code, out, said = h.ctl("verify", "--all")
    assert code == 1 and said == ""
    assert set(out.splitlines()) == {
        "u/Maildir/cur: only in the index: 1600000000.M1P1.host:2,S" + KNOWS,
        "u/Maildir/cur: only in the index: 1600000001.M1P1.host:2,S" + KNOWS,
        "u/Maildir/cur: missing from the index: 1600000001.M1P1.host:2,RS" + KNOWS,
        "u/Maildir/cur: another inode: 1600000002.M1P1.host:2,S" + KNOWS,
        "u/Maildir/cur: missing from the index: 1600000009.odd\\x0a\\xffname:2," + KNOWS,
        "v/Maildir/new: gone from the disk" + KNOWS,
        "v/Maildir/cur: gone from the disk" + KNOWS,
        "3 folders, 7 messages compared, 7 differences (0 of them claimed as right), 1 not indexed",
    }
    code, told = h.json("verify", "-", stdin=f"{h.root}/u/Maildir\n\nw\n")
    assert code == 1 and len(told["differences"]) == 5 and told["not_indexed"] == 1
    assert {
        "folder": "u/Maildir",
        "half": "cur",
        "kind": "missing",
        "name": "1600000009.odd\\x0a\\xffname:2,",
        "claimed": False,
    } in told["differences"]
    code, told = h.json("verify", "w")
    assert code == 0 and told["folders"] == 0 and told["not_indexed"] == 1
    code, _, said = h.ctl("verify", "nobody")
    assert code == 0 and "nobody" in said
    assert h.ctl("rebuild", "--all")[0] == 0
    assert h.ctl("verify", "--all")[0] == 0


def tamper(h, remove, add, fix_sum):
    """Writes into the index what only a bug or a flipped bit could."""
    db = sqlite3.connect(h.index, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    row = db.execute("SELECT id, sum, count FROM half WHERE folder = ? AND half = 1", (b"u/Maildir",))
    half, total, count = row.fetchone()
    for name, ino in remove.items():
        db.execute("DELETE FROM message WHERE half = ? AND name = ?", (half, os.fsencode(name)))
        total, count = total - xxh3_listing(name, ino), count - 1
    for name, ino in add.items():
        db.execute("INSERT INTO message VALUES (?, ?, ?, 0)", (half, os.fsencode(name), ino))
        total, count = total + xxh3_listing(name, ino), count + 1
    if fix_sum:
        total = (total + 2**63) % 2**64 - 2**63
        db.execute("UPDATE half SET sum = ?, count = ? WHERE id = ?", (total, count, half))
    db.execute("COMMIT")
    db.close()


def test_verify_finds_what_is_wrong(indexed):
    h = indexed
    settled(h)
    h.stop()
    disk = h.disk("u/Maildir", CUR)
    name, ino = sorted(disk.items())[0]
    tamper(h, {name: ino}, {"1600000007.phantom:2,": 12345}, fix_sum=True)
    code, out, said = h.ctl("verify", "--all")
    assert code == 1 and said == ""
    assert out.splitlines() == [
        f"u/Maildir/cur: missing from the index: {name}",
        "u/Maildir/cur: only in the index: 1600000007.phantom:2,",
        "3 folders, 7 messages compared, 2 differences (2 of them claimed as right), 0 not indexed",
    ]
    assert h.json("verify", "u")[1]["claimed"] == 2


def settled(h):
    """Rebuilds until no folder is on its first listing within a tick: only then the index claims anything."""

    def done():
        assert h.ctl("rebuild", "--all")[0] == 0
        return not any(h.row(f, half)["unsettled"] for f in ("u/Maildir", "v/Maildir") for half in (NEW, CUR))

    until("settled rows", done)


def test_verify_of_a_damaged_row(indexed):
    indexed.stop()
    tamper(indexed, {}, {"1600000007.phantom:2,": 12345}, fix_sum=False)
    code, out, _ = indexed.ctl("verify", "--all")
    assert code == 1 and "u/Maildir/cur: damaged in the index" + KNOWS in out.splitlines()


def test_verify_refuses_the_index_of_another_tree(indexed):
    indexed.stop()
    other = os.path.join(indexed.dir, "other")
    os.mkdir(other)
    code, out, said = indexed.ctl("-o", f"root={other}", "verify", "--all")
    assert code == 3 and out == "" and indexed.index in said


def test_verify_while_mail_moves(indexed):
    """Deliveries, flags and expunges through the mount and behind its back: nothing wrong is ever claimed."""
    h = indexed
    h.mount_fs()
    stop = threading.Event()

    def live(top, first):
        n = first
        while not stop.is_set():
            n += 1
            name = f"{n}.M1P1.host"
            tmp, new, cur = (os.path.join(top, "u/Maildir", d) for d in ("tmp", "new", "cur"))
            with open(os.path.join(tmp, name), "wb") as f:
                f.write(b"Subject: x\n\nx\n")
            os.rename(os.path.join(tmp, name), os.path.join(new, name))
            os.listdir(cur)
            os.rename(os.path.join(new, name), os.path.join(cur, name + ":2,S"))
            if n % 2:
                os.unlink(os.path.join(cur, name + ":2,S"))

    threads = [threading.Thread(target=live, args=a) for a in ((h.mount, 1900000000), (h.root, 2000000000))]
    for t in threads:
        t.start()
    try:
        for _ in range(15):
            code, told = h.json("verify", "--all")
            assert code in (0, 1) and told["claimed"] == 0 and told["unreadable"] == 0, told
    finally:
        stop.set()
        for t in threads:
            t.join()


# -- serve


def test_serve(host):
    code, out, said = host.ctl("serve")
    assert code == 3 and host.socket + ".fs" in said
    host.start()
    host.mount_fs()
    assert host.ctl("serve") == (0, "* index\n", "")
    assert host.json("serve", "compare", "u/Maildir", os.path.join(host.mount, "v")) == (
        0,
        {"*": "index", "u/Maildir": "compare", "v": "compare"},
    )
    assert host.ctl("serve", "lower")[1] == "* lower\n"
    assert host.json("serve") == (0, {"*": "lower"})


def test_only_root_may_change_what_is_served(host):
    host.start()
    host.mount_fs()
    command = [CTL, "-c", host.file, "serve", "lower"]
    other = {"user": 65534, "group": 65534, "extra_groups": []}
    done = subprocess.run(command, **other, capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 1 and b"root" in done.stderr
    assert host.json("serve") == (0, {"*": "index"})

# SPDX-License-Identifier: GPL-2.0-or-later
"""watch = inotify: local agents that tell nobody are heard of; folders come, move and go; queue and watches run out."""

import contextlib
import json
import os
import pwd
import shutil
import statistics
import subprocess
import time

import pytest

from daemon import ADD, BUILD, LOOK, NEW, ROLE_FS, WAIT_S, Daemon, standing_still, until
from host import Maildex, as_user, getdents_all, opened

ARRIVAL = {
    "rename": lambda tmp, new: (create(tmp), os.rename(tmp, new)),
    "link": lambda tmp, new: (create(tmp), os.link(tmp, new), os.unlink(tmp)),
    "creation": lambda tmp, new: create(new),
}


def create(path):
    with open(path, "xb") as f:
        f.write(b"Subject: x\n\nx\n")


def deliver(d, folder, name, how="rename"):
    ARRIVAL[how](d.path(folder, "tmp", name), d.path(folder, "new", name))
    return name


def inotify(d):
    with d.client() as c:
        s = c.status()
    return {k.split(".", 1)[1]: int(v) if v.isdigit() else v for k, v in s.items() if k.startswith("inotify.")}


def watching(d, folders=None):
    """Waits until all is watched."""

    def done():
        s = inotify(d)
        return s["state"] == "watching" and s["unwatched"] == 0 and folders in (None, s["folders"])

    until(f"{folders or 'all'} folders to be watched", done)
    return d


@pytest.fixture
def watched():
    with Daemon(watch="inotify") as d:
        for folder in ("u", "u/.Sub", "v"):
            d.maildir(folder)
        watching(d.start(), 3)
        yield d


class Heard:
    """What maildexfs would be told."""

    def __init__(self, daemon):
        self.client = daemon.client(role=ROLE_FS)
        self.client.status()  # it is known as what it is
        self.all = []  # (folder, half, kind, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def take(self):
        f = self.client.feed()
        self.all += [(f.folder, f.half, kind, name) for kind, name, _, _ in f.changes]

    def wait(self, folder, name):
        while (folder, NEW, ADD, name) not in self.all:
            self.take()

    def looked(self, folder):
        while (folder, NEW, LOOK, "") not in self.all:
            self.take()

    def folders(self, name):
        return [folder for folder, _, _, n in self.all if n == name]


@pytest.fixture
def heard(watched):
    with Heard(watched) as h:
        yield h


# -- a delivery


@pytest.fixture
def both():
    with Maildex(watch="inotify") as m:
        m.maildir("u", new=20)
        m.maildir("u/.Sub")
        m.start()
        m.fs_start()
        until("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")
        watching(m)
        for folder in ("u/new", "u/.Sub/new", "u/cur"):
            m.same(folder)
            m.proven(folder)
        until("rows", lambda: all(m.row(f, NEW) and not m.row(f, NEW)["need"] for f in ("u", "u/.Sub")))
        yield m


@pytest.mark.parametrize("how", ARRIVAL)
def test_seen_by_index_and_live_folder_without_an_opendir(both, how):
    m = both
    for folder in ("u", "u/.Sub"):
        with opened(m.up(folder, "new")) as fd, m.counting("lower.listings", "opendirs", "events.received") as n:
            before, rings = os.stat(m.up(folder, "new")).st_mtime_ns, m.count("rings.done")
            name = deliver(m, folder, "1800000000.M1P1.host", how)
            until("the index", lambda: m.names(folder, NEW) == m.disk(folder, NEW))
            until("the mtime", lambda: os.stat(m.up(folder, "new")).st_mtime_ns != before)
            until("the live folder", lambda: m.count("rings.done") > rings)
            # A handle's first READDIR shows what the live folder holds then; it asks the disk for nothing.
            assert name.encode() in {e[3] for e in getdents_all(fd)}
        assert n["lower.listings"] == 0 and n["opendirs"] == 0 and n["events.received"] >= 1
        m.same(folder, "new")


def test_latency(heard, watched):
    """From the agent's rename to the message that tells maildexfs, with the index written."""
    times = []
    for i in range(100):
        name = f"18{i:08}.M1P1.host"
        create(watched.path("u/tmp", name))
        time.sleep(0.01)  # alone, not gathered with the one before
        start = time.monotonic()
        os.rename(watched.path("u/tmp", name), watched.path("u/new", name))
        heard.wait("u", name)
        times.append((time.monotonic() - start) * 1000)
    print(f"delivery to feed: median {statistics.median(times):.2f} ms, worst {max(times):.2f} ms")


def test_a_burst_is_told_in_few_pieces(heard, watched):
    names = [deliver(watched, "v", f"18{i:08}.M1P1.host") for i in range(1000)]
    for n in names:
        heard.wait("v", n)
    assert [n for n in names if heard.folders(n) != ["v"]] == []
    with watched.client() as c:
        assert int(c.status()["events.received"]) <= 500


def test_only_arrivals_in_new(heard, watched):
    """cur/, tmp/ and what goes are not watched, nor are dovecot's files beside them."""
    os.rename(watched.path("u/new", deliver(watched, "u", "1.2.3")), watched.path("u/cur/1.2.3:2,S"))
    os.unlink(watched.path("u/cur/1.2.3:2,S"))
    create(watched.path("u/cur/4.5.6:2,"))
    create(watched.path("u/dovecot-uidlist.lock"))
    os.rename(watched.path("u/dovecot-uidlist.lock"), watched.path("u/dovecot-uidlist"))
    deliver(watched, "u", "last")
    heard.wait("u", "last")
    assert {h[:2] + h[3:] for h in heard.all} == {("u", NEW, "1.2.3"), ("u", NEW, "last")}
    assert inotify(watched)["events"] == 2


def test_own_deliveries_and_renames_cost_little(both):
    """The mount's own changes of the tree below come as events, too."""
    m = both
    n = 50

    def lower():
        with m.client() as c:
            s = m.idle(c)
        return {k: int(s["lower." + k]) for k in ("lookups", "getattrs", "listings")}

    def settle(heard):
        until("the events", lambda: inotify(m)["events"] >= heard)
        return lower()

    before, events = lower(), inotify(m)["events"]
    with m.counting("lower.listings", "lower.lookups", "lower.getattrs") as fs:
        for i in range(n):
            create(m.up("u/tmp", f"19{i}"))
            os.rename(m.up("u/tmp", f"19{i}"), m.up("u/new", f"19{i}"))
        after = settle(events + n)
        until("the index", lambda: m.names("u", NEW) == m.disk("u", NEW))
    print("own deliveries, each:", {k: (after[k] - before[k]) / n for k in after}, "maildexfs:", fs)
    assert after["listings"] == before["listings"]
    assert after["lookups"] - before["lookups"] <= 2 * n
    before, events = after, inotify(m)["events"]
    with m.counting("lower.listings", "lower.lookups", "lower.getattrs") as fs:
        for i in range(n):
            os.rename(m.up("u/new", f"19{i}"), m.up("u/cur", f"19{i}:2,S"))
        until("the index", lambda: m.names("u", NEW) == m.disk("u", NEW))
        after = lower()
    print("own renames from new to cur, each:", {k: (after[k] - before[k]) / n for k in after}, "maildexfs:", fs)
    assert inotify(m)["events"] == events  # nothing arrives
    m.same("u/new")
    m.same("u/cur")


# -- folders


def test_mailboxes_made_while_running(watched, heard):
    for i in range(300):
        watched.maildir(f"w{i}")
        watched.maildir(f"w{i}/.Sent")
        deliver(watched, f"w{i}", "at.once")
        deliver(watched, f"w{i}/.Sent", "at.once")
    for i in range(300):
        heard.wait(f"w{i}", "at.once")
        heard.wait(f"w{i}/.Sent", "at.once")
    watching(watched, 603)
    # One for each new/, one for each mailbox, one for the root; a directory that became a Maildir just then may have had one
    # more.
    until("no other watch to be left", lambda: inotify(watched)["watches"] == 603 + 302 + 1)
    for i in range(300):
        deliver(watched, f"w{i}/.Sent", "later")
        heard.wait(f"w{i}/.Sent", "later")


def test_folder_created_renamed_deleted_recreated(watched, heard):
    d = watched
    d.maildir("u/.A")
    heard.wait("u/.A", deliver(d, "u/.A", "created"))
    os.rename(d.path("u/.A"), d.path("u/.B"))
    heard.wait("u/.B", deliver(d, "u/.B", "renamed"))
    d.maildir("u/.A")
    heard.wait("u/.A", deliver(d, "u/.A", "another"))
    shutil.rmtree(d.path("u/.B"))
    watching(d, 4)
    d.maildir("u/.B")
    heard.wait("u/.B", deliver(d, "u/.B", "recreated"))
    os.rename(d.path("u/.A"), d.path("u/.C"))
    os.rename(d.path("u/.B"), d.path("u/.A"))
    os.rename(d.path("u/.C"), d.path("u/.B"))
    heard.wait("u/.A", deliver(d, "u/.A", "swapped"))
    heard.wait("u/.B", deliver(d, "u/.B", "swapped too"))
    watching(d, 5)
    # Under the path that it had when it came, or the one that the folder has now.
    assert set(heard.folders("created")) <= {"u/.A", "u/.B"} and set(heard.folders("renamed")) == {"u/.B"}
    assert set(heard.folders("another")) <= {"u/.A", "u/.C", "u/.B"}
    assert heard.folders("swapped") == ["u/.A"] and heard.folders("swapped too") == ["u/.B"]


def test_mailbox_and_domain_renamed(watched, heard):
    d = watched
    os.mkdir(d.path("domain"))
    os.rename(d.path("u"), d.path("domain/u"))
    heard.wait("domain/u/.Sub", deliver(d, "domain/u/.Sub", "one"))
    os.rename(d.path("domain"), d.path("example.org"))
    heard.wait("example.org/u/.Sub", deliver(d, "example.org/u/.Sub", "two"))
    heard.wait("example.org/u", deliver(d, "example.org/u", "three"))
    watching(d, 3)
    os.rename(d.path("example.org/u"), d.dir + "/out")
    watching(d, 1)
    os.makedirs(d.path("u2"))
    os.rename(d.dir + "/out", d.path("u2/Maildir"))
    heard.wait("u2/Maildir/.Sub", deliver(d, "u2/Maildir/.Sub", "four"))
    assert heard.folders("two") in (["example.org/u/.Sub"], ["example.org/u/.Sub", "u2/Maildir/.Sub"])


def test_parts_of_a_maildir_come_and_go(watched, heard):
    d = watched
    os.rename(d.path("u/.Sub/new"), d.path("u/.Sub/old"))
    watching(d, 2)
    os.mkdir(d.path("u/.Sub/new"))
    watching(d, 3)
    heard.wait("u/.Sub", deliver(d, "u/.Sub", "in the new one"))
    create(d.path("u/.Sub/old/silent"))
    os.rmdir(d.path("v/cur"))
    watching(d, 2)
    os.mkdir(d.path("v/cur"))
    watching(d, 3)
    heard.wait("v", deliver(d, "v", "again"))
    assert heard.folders("silent") == []


def test_a_folder_that_somebody_holds_open_is_removed(watched, heard):
    """Its watch lives on in the kernel; a new folder of that name has its own."""
    d = watched
    with opened(d.path("u/.Sub/new")), opened(d.path("u/.Sub")):
        shutil.rmtree(d.path("u/.Sub"))
        watching(d, 2)
        d.maildir("u/.Sub")
        heard.wait("u/.Sub", deliver(d, "u/.Sub", "1.2.3"))
    watching(d, 3)


def test_links_out_of_the_tree_are_not_followed(watched, heard):
    d = watched
    outside = d.dir + "/outside"
    for sub in ("new", "cur", "tmp"):
        os.makedirs(os.path.join(outside, sub))
    os.symlink(outside, d.path("link"))
    os.symlink(outside, d.path("u/.Link"))
    d.maildir("w")
    os.rmdir(d.path("w/new"))
    os.symlink(outside + "/new", d.path("w/new"))
    create(outside + "/new/secret")
    heard.wait("u", deliver(d, "u", "last"))
    watching(d, 3)
    assert heard.folders("secret") == []


def test_found_in_a_round(watched, heard):
    """What no watch told of is found when the tree is gone through: here, in a folder without a watch for folders."""
    d = watched
    d.maildir("u/.Sub/nested")
    d.stop()
    d.conf["scrub_interval"] = "1s"
    watching(d.start(), 4)
    with Heard(d) as h:
        d.maildir("u/.Sub/deeper")
        h.wait("u/.Sub/deeper", deliver(d, "u/.Sub/deeper", "1.2.3"))
        shutil.rmtree(d.path("u/.Sub/nested"))
        watching(d, 4)


# -- whose folders


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_as_another_user():
    """maildexd is nobody, folders are their owners' and mode 0700."""
    assert pwd.getpwnam("nobody").pw_uid != 0
    with Daemon(user="nobody", watch="inotify") as d:
        for i in range(3):
            d.maildir(f"u{i}", uid=61000 + i)
            d.maildir(f"u{i}/.Sub", uid=61000 + i)
        watching(d.start(), 6)
        with Heard(d) as h:
            for i in range(3):
                as_user(61000 + i, lambda: deliver(d, f"u{i}/.Sub", "1.2.3"))
                h.wait(f"u{i}/.Sub", "1.2.3")
            as_user(61002, lambda: [os.makedirs(d.path("u2/.New", s), 0o700) for s in ("new", "cur", "tmp")])
            as_user(61002, lambda: deliver(d, "u2/.New", "1.2.3"))
            h.wait("u2/.New", "1.2.3")
        watching(d, 7)


# -- what runs out


def max_queued():
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as f:
        return int(f.read())


def test_overflow(watched, heard):
    """More than the kernel keeps for us: nobody knows what was lost, so all that is watched is looked at again."""
    d = watched
    with d.client() as c:
        assert c.rebuild()[0] == 0
    with standing_still(d.process):
        with opened(d.path("v/tmp")) as tmp, opened(d.path("v/new")) as new:
            os.close(os.open("0", os.O_CREAT | os.O_WRONLY, dir_fd=tmp))
            for i in range(max_queued() // 2 + 100):  # events that differ: the kernel merges like ones
                os.rename("0", f"{i}", src_dir_fd=tmp, dst_dir_fd=new)
                os.rename(f"{i}", "0", src_dir_fd=new, dst_dir_fd=tmp)
                os.link("0", f"l{i}", src_dir_fd=tmp, dst_dir_fd=new)
                os.unlink(f"l{i}", dir_fd=new)
        deliver(d, "u", "lost")
        os.rename(d.path("u/.Sub"), d.path("u/.Other"))
        d.maildir("w")
        deliver(d, "w", "lost, too")
    heard.looked("u")
    heard.looked("v")
    heard.wait("u/.Other", deliver(d, "u/.Other", "moved"))
    heard.wait("w", "lost, too")
    watching(d, 4)
    s = inotify(d)
    assert s["overflows"] >= 1
    # A scrub may have listed it already.
    until("the row to need a listing", lambda: d.row("u", NEW)["need"] or "lost" in d.names("u", NEW))
    assert d.logged().count("fs.inotify.max_queued_events") == 1
    heard.wait("u", deliver(d, "u", "and on"))


class Limited(Daemon):
    """In a user namespace of its own, whose limits are nobody else's."""

    limits = {}

    def command(self, *args):
        for name in self.limits:
            assert name in ("max_inotify_watches", "max_inotify_instances")
        script = "".join(f"echo {v} > /proc/sys/user/{k} && " for k, v in self.limits.items()) + 'exec "$@"'
        return ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *super().command(*args)]

    def limit(self, name, value):
        inside = ["nsenter", "--user", "--preserve-credentials", "-t", str(self.process.pid)]
        subprocess.run([*inside, "sh", "-c", f"echo {value} > /proc/sys/user/{name}"], check=True, timeout=WAIT_S)


@contextlib.contextmanager
def limited(**limits):
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    with Limited(watch="inotify") as d:
        d.limits = limits
        yield d


def test_watch_limit():
    with limited(max_inotify_watches=31) as d:
        for i in range(60):
            d.maildir(f"u{i}")
        d.start()
        until("the limit", lambda: inotify(d)["state"] == "limited")
        s = inotify(d)
        assert s["watches"] == 31 and s["folders"] == 15 and s["unwatched"] == 45
        line = [l for l in d.logged().splitlines() if "fs.inotify.max_user_watches" in l]
        assert len(line) == 1 and " 15 folders are watched, 45 are not" in line[0], d.logged()
        with Heard(d) as h:
            d.limit("max_inotify_watches", 1000)
            watching(d, 60)
            for i in range(60):
                h.wait(f"u{i}", deliver(d, f"u{i}", "1.2.3"))
        until("it to be said", lambda: "there are enough watches now" in d.logged())


def test_no_instance_to_be_had():
    """It runs without, says what to do, and begins when it can."""
    with limited(max_inotify_instances=0) as d:
        d.maildir("u")
        d.start()
        until("the line", lambda: "fs.inotify.max_user_instances" in d.logged())
        assert inotify(d)["state"] == "off"
        with d.client() as c:
            assert c.rebuild()[0] == 0
        d.limit("max_inotify_instances", 10)
        watching(d, 1)
        with Heard(d) as h:
            h.wait("u", deliver(d, "u", "1.2.3"))
        assert d.logged().count("fs.inotify.max_user_instances") == 1


def test_tree_goes_away(watched, heard):
    """Nothing that is read then is believed; when it is back, all is looked at."""
    d = watched
    os.rename(d.root, d.root + ".away")
    os.mkdir(d.root)
    until("the state", lambda: inotify(d)["state"] == "away")
    create(d.root + ".away/u/new/while.away")
    os.rename(d.root + ".away/v", d.root + ".away/w")
    shutil.rmtree(d.root + ".away/u/.Sub")
    os.rmdir(d.root)
    os.rename(d.root + ".away", d.root)
    heard.looked("u")
    watching(d, 2)
    heard.wait("w", deliver(d, "w", "1.2.3"))
    assert heard.folders("while.away") == []


@pytest.mark.full
def test_folders_come_and_go_without_end(watched, heard):
    """The library cannot forget watches that the kernel ended: it is begun anew, and what is watched stays so."""
    d = watched
    for i in range(10100):
        os.makedirs(d.path("u", f".{i}", "new"))
        os.mkdir(d.path("u", f".{i}", "cur"))
        os.mkdir(d.path("u", f".{i}", "tmp"))
    watching(d, 10103)
    for i in range(10100):
        shutil.rmtree(d.path("u", f".{i}"))
    watching(d, 3)
    heard.looked("u/.Sub")  # as after an overflow
    heard.wait("u/.Sub", deliver(d, "u/.Sub", "1.2.3"))


# -- status


def test_status(watched):
    conf = watched.command()[2]
    ctl = [os.path.join(BUILD, "maildexctl"), "-c", conf, "status"]
    done = subprocess.run([*ctl, "--json"], capture_output=True, timeout=WAIT_S, check=False)
    s = json.loads(done.stdout)
    got = {k: s["maildexd.inotify." + k] for k in ("state", "folders", "unwatched", "watches", "events", "overflows")}
    assert got == {"state": "watching", "folders": 3, "unwatched": 0, "watches": 6, "events": 0, "overflows": 0}
    text = subprocess.run(ctl, capture_output=True, timeout=WAIT_S, check=False).stdout.decode()
    lines = [line.split() for line in text.splitlines()]
    assert ["inotify.state", "watching"] in lines and ["inotify.watches", "6"] in lines


def test_without(watched):
    watched.stop()
    watched.conf["watch"] = "none"
    watched.start()
    assert inotify(watched) == {}


# -- over its own root


@pytest.mark.parametrize("first", ["maildexd", "maildexfs"])
def test_mount_over_root(first):
    """Servers keep their paths; who delivers below, into the private bind, is seen."""
    with Maildex(watch="inotify") as m:
        m.conf["mount"] = m.root
        m.maildir("u", new=3)
        steps = {"maildexd": m.start, "maildexfs": m.fs_start}
        steps.pop(first)()
        steps.popitem()[1]()
        until("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")
        watching(m, 1)
        os.listdir(m.up("u/new"))
        os.listdir(m.up("u/new"))
        below = os.path.join(os.path.dirname(m.socket), "lower")
        with Heard(m) as h:
            ARRIVAL["rename"](below + "/u/tmp/1.2.3", below + "/u/new/1.2.3")
            h.wait("u", "1.2.3")
            ARRIVAL["rename"](m.up("u/tmp/4.5.6"), m.up("u/new/4.5.6"))
            h.wait("u", "4.5.6")
        assert {"1.2.3", "4.5.6"} <= set(os.listdir(m.up("u/new")))

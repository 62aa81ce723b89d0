# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to NFS servers, seen through the mount and on plain NFS at the same moment: both must do the same, listings
must be what the server holds, and nothing may be lost."""

import contextlib
import errno
import os
import shutil
import threading
import time

import pytest

import calls
import server
from daemon import make_maildir, until
from host import acting_as, getdents, getdents_all, ls, opened
from lab import OWNER, Host, Tree, mounted

AWAY_S = 20  # what mail servers are to sit out
U = "u/Maildir"


def outcome(what, *args):
    """What it returned, or the error's name."""
    try:
        return what(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


def put(path, data=b"Subject: x\n\nbody\n"):
    """As a delivery agent writes it: what could not be written shows at fsync or close at the latest."""
    with acting_as(OWNER):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)


def deliver(maildir, name, data=b"Subject: x\n\nbody\n"):
    put(f"{maildir}/tmp/{name}", data)
    os.rename(f"{maildir}/tmp/{name}", f"{maildir}/new/{name}")


def flag(maildir, name):
    os.rename(f"{maildir}/cur/{name}", f"{maildir}/cur/{name}T")


def take(maildir, name):
    os.rename(f"{maildir}/new/{name}", f"{maildir}/cur/{name}:2,")


def expunge(maildir, name):
    os.unlink(f"{maildir}/cur/{name}")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def seen_by(path):
    return outcome(lambda: sorted(os.listdir(path)))


class Call(threading.Thread):
    """A call that may wait for the server."""

    def __init__(self, what, *args):
        super().__init__(daemon=True)
        self.what, self.args, self.result = what, args, None
        self.start()

    def run(self):
        self.result = outcome(self.what, *self.args)

    def ended(self):
        return not self.is_alive()

    def get(self):
        until("a call that waited for the server", self.ended)
        return self.result


@pytest.fixture(name="fleet")
def _fleet():
    """A tree, a host with maildex, and the same tree on plain NFS: by a mount of its own of the same host."""
    with Tree() as tree, mounted("mf1") as point:
        tree.maildir("u", new=3, cur=40)
        with Host("mf1", tree) as host:
            yield tree, host, os.path.join(point, tree.name)


def assert_right(tree, *hosts):
    for half in ("new", "cur"):
        for host in hosts:
            assert host.listed("u", half) == tree.real("u", half), f"{half} on {host.conf['host']}"


def all_works(tree, host, plain, tag):
    """Each kind of change through the mount and beside it, each in the next listing."""
    for where, n in ((host.mnt, 0), (plain, 1)):
        maildir, name = os.path.join(where, U), f"18{n}.{tag}"
        for change, what in ((deliver, name), (take, name), (flag, f"{name}:2,"), (expunge, f"{name}:2,T")):
            change(maildir, what)
            assert_right(tree, host)


# -- the server restarts


def test_server_restart(fleet):
    """In the middle of a listing, of a message, and while a host is idle."""
    tree, host, plain = fleet
    bodies = {"small": os.urandom(300_000), "big": os.urandom(3 << 20)}
    for name, body in bodies.items():
        put(tree.on(U, "cur", f"19.{name}:2,S"), body)
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(Host("mf2", tree))
        stack.enter_context(acting_as(OWNER))  # who reads the big one straight
        real = tree.real("u", "cur")
        assert_right(tree, host, idle)
        listings, messages = [], []
        for where in (host.mnt, plain):
            fd = stack.enter_context(opened(os.path.join(where, U, "cur")))
            listings.append((fd, getdents(fd, 600)))
            for name, body in bodies.items():
                f = stack.enter_context(open(os.path.join(where, U, "cur", f"19.{name}:2,S"), "rb"))
                assert f.read(5000) == body[:5000]
                messages.append((f, body[5000:]))
        server.restart()
        for fd, begun in listings:
            names = [name.decode() for _, _, _, name in begun + getdents_all(fd)]
            assert sorted(n for n in names if n not in (".", "..")) == real
        for f, rest in messages:
            assert f.read() == rest
        assert_right(tree, host, idle)
    all_works(tree, host, plain, "restarted")


# -- what a client holds is gone: ESTALE


def make_again(tree, **counts):
    """The Maildir is another one, under the same name, with other messages in it."""
    shutil.rmtree(tree.on(U))
    make_maildir(tree.on(U), uid=OWNER)
    for half, n in counts.items():
        for i in range(n):
            put(tree.on(U, half, f"20{i}.again:2,"))


@pytest.mark.parametrize("first", [seen_by, read, os.stat, os.unlink, flag, deliver])
def test_folder_made_again_on_the_server(fleet, first):
    """Its handles are stale: asked again by path, once, then right, whatever is asked for first."""
    tree, host, plain = fleet
    for new, cur in ((1, 5), (0, 4), (2, 3)):
        seen = []
        for where in (plain, host.mnt):
            maildir, name = os.path.join(where, U), "201.again:2,"
            what = {seen_by: [f"{maildir}/new"], flag: [maildir, name], deliver: [maildir, "28.again"]}
            make_again(tree, new=new, cur=cur)
            found = outcome(first, *what.get(first, [f"{maildir}/cur/{name}"]))
            seen.append(found.st_size if first is os.stat else found)
            assert_right(tree, host)
        print(f"{first.__name__}: plain NFS: {seen[0]}, mount: {seen[1]}")
        assert seen[1] not in ("ESTALE", "ENOENT")
        assert seen[0] in (seen[1], "ENOENT")  # what it knows not to be there it believes for a while
    all_works(tree, host, plain, "again")


@pytest.mark.parametrize("name", ["dovecot-uidlist", "cur/1600000001.M1P1.host:2,S"])
def test_file_made_again_on_the_server(fleet, name):
    tree, host, plain = fleet
    for n in range(3):
        body = b"%d" % n * 5000
        with contextlib.suppress(FileNotFoundError):
            os.unlink(tree.on(U, name))
        put(tree.on(U, name), body)
        for where in (plain, host.mnt):
            assert outcome(read, os.path.join(where, U, name)) == body


# -- the server is away


@pytest.fixture(name="away", params=["cut off", "replies lost"])
def _away(request):
    """A block in which the host mf1 cannot reach it; at its end AWAY_S have passed and all calls still wait. Meanwhile
    maildexfs answers who asks it for itself."""

    @contextlib.contextmanager
    def block(host, waiting):
        with (server.cut_off if request.param == "cut off" else server.replies_lost)("mf1"):
            end = time.monotonic() + AWAY_S
            yield
            while time.monotonic() < end:
                assert "maildexfs.opendirs" in host.fs_status()
                assert not [c.result for c in waiting if c.ended()], "did not wait"
                time.sleep(1)

    return block


def fill(tree, n):
    """Without a look at each."""
    model = tree.on(U, "cur", tree.real("u", "cur")[0])
    for i in range(n):
        os.link(model, tree.on(U, "cur", f"16{i}.M{i}P1.in:2,S"))


def listing_calls(point):
    return sum(op.count for kind, op in calls.read(point).items() if kind.startswith("READDIR"))


def test_away_in_the_middle_of_a_listing(away):
    """In small pieces, so that there is a middle, and it takes some seconds."""
    small = ("rsize=4096",)
    with Tree() as tree, mounted("mf1", options=small) as point:
        tree.maildir("u", cur=1)
        fill(tree, 20000)
        with Host("mf1", tree, small) as host:
            begun = {p: listing_calls(p) for p in (host.nfs, point)}
            with server.far_away("mf1", 10):
                waiting = [Call(ls, os.path.join(w, U, "cur")) for w in (host.mnt, os.path.join(point, tree.name))]
                until("both listings to be under way", lambda: all(listing_calls(p) > n + 9 for p, n in begun.items()))
                with away(host, waiting):
                    pass
            real = {os.fsencode(n) for n in tree.real("u", "cur")}
            assert [c.get() == real for c in waiting] == [True, True]
            assert_right(tree, host)


def test_away_in_the_middle_of_renames(fleet, away):
    tree, host, plain = fleet
    assert_right(tree, host)
    names, new = tree.real("u", "cur"), tree.real("u", "new")
    waiting = []
    with away(host, waiting):
        waiting += [Call(flag, os.path.join(w, U), n) for w, n in zip((host.mnt, plain), names)]
        waiting += [Call(take, os.path.join(w, U), n) for w, n in zip((host.mnt, plain), new)]
        waiting += [Call(expunge, os.path.join(w, U), n) for w, n in zip((host.mnt, plain), names[2:])]
    assert [c.get() for c in waiting] == [None] * 6
    assert tree.real("u", "cur") == sorted([n + "T" for n in names[:2]] + names[4:] + [n + ":2," for n in new[:2]])
    assert tree.real("u", "new") == new[2:]
    assert_right(tree, host)
    all_works(tree, host, plain, "back")


def test_away_in_the_middle_of_a_delivery(fleet, away):
    """Between create and write, write and rename, and before all of it."""
    tree, host, plain = fleet
    body = os.urandom(200_000)
    assert_right(tree, host)

    def write_on(fd, maildir, name):
        with acting_as(OWNER):
            os.write(fd, body)
            os.fsync(fd)
            os.close(fd)
            os.rename(f"{maildir}/tmp/{name}", f"{maildir}/new/{name}")

    waiting, begun = [], []
    for maildir, tag in ((host.up(U), "mount"), (os.path.join(plain, U), "plain")):
        put(f"{maildir}/tmp/21.{tag}", body)
        with acting_as(OWNER):
            begun.append((os.open(f"{maildir}/tmp/22.{tag}", os.O_WRONLY | os.O_CREAT, 0o600), maildir, f"22.{tag}"))
    with away(host, waiting):
        for fd, maildir, name in begun:
            tag = name[3:]
            waiting.append(Call(os.rename, f"{maildir}/tmp/21.{tag}", f"{maildir}/new/21.{tag}"))
            waiting.append(Call(write_on, fd, maildir, name))
            waiting.append(Call(deliver, maildir, f"23.{tag}", body))
    assert [c.get() for c in waiting] == [None] * 6
    delivered = [f"{n}.{tag}" for n in (21, 22, 23) for tag in ("mount", "plain")]
    assert [n for n in tree.real("u", "new") if n[:2] in ("21", "22", "23")] == delivered
    for name in delivered:
        assert read(tree.on(U, "new", name)) == body and read(host.up(U, "new", name)) == body
    assert_right(tree, host)


# -- the export is made read-only


def test_read_only(fleet):
    tree, host, plain = fleet
    assert_right(tree, host)
    cur, new = tree.real("u", "cur"), tree.real("u", "new")
    with server.read_only():
        for where in (plain, host.mnt):
            maildir = os.path.join(where, U)
            refused = [
                outcome(deliver, maildir, "24.ro"),
                outcome(flag, maildir, cur[0]),
                outcome(take, maildir, new[0]),
                outcome(expunge, maildir, cur[0]),
                outcome(os.mkdir, f"{maildir}/.Folder"),
                outcome(os.utime, f"{maildir}/cur/{cur[0]}", (1, 1)),
                outcome(os.chmod, f"{maildir}/cur/{cur[0]}", 0o600),
            ]
            assert refused == ["EROFS"] * 7, where
            assert read(f"{maildir}/cur/{cur[1]}") == read(tree.on(U, "cur", cur[1]))
        assert (tree.real("u", "cur"), tree.real("u", "new")) == (cur, new)
        assert_right(tree, host)
        deliver(tree.on(U), "24.server")
        assert_right(tree, host)
    all_works(tree, host, plain, "rw")


# -- the disk is full, or its owner's share of it


def delivery(maildir, name, body):
    """The step that failed and how, or None; what is left of it is removed, as delivery agents do."""
    step, fd = "create", -1
    try:
        with acting_as(OWNER):
            fd = os.open(f"{maildir}/tmp/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            step = "write"
            os.write(fd, body)
            os.fsync(fd)
            step = "close"
            os.close(fd)
            step, fd = "rename", -1
            os.rename(f"{maildir}/tmp/{name}", f"{maildir}/new/{name}")
            return None
    except OSError as e:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
        if step != "create":
            os.unlink(f"{maildir}/tmp/{name}")
        return step, errno.errorcode[e.errno]


class Full:
    """A disk of 64 MB with a tree on it that can be filled up."""

    def __init__(self, kind, disk):
        self.kind, self.disk = kind, disk

    def fill(self):
        if self.kind == "quota":
            self._limit(1, 0)
        elif self.kind == "quota of files":
            self._limit(0, 1)
        else:
            with open(self.disk.path + "/filler", "wb") as f, contextlib.suppress(OSError):
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
            os.sync()

    def empty(self):
        if self.kind == "disk":
            os.unlink(self.disk.path + "/filler")
            os.sync()
        else:
            self._limit(0, 0)

    def _limit(self, kbytes, files):
        server.run("setquota", "-u", str(OWNER), *map(str, (kbytes, kbytes, files, files)), self.disk.path)


@pytest.mark.parametrize("kind, error", [("quota", "EDQUOT"), ("quota of files", "EDQUOT"), ("disk", "ENOSPC")])
def test_full(kind, error):
    body = os.urandom(100_000)
    with (
        server.Disk("-O", "quota", options=["usrquota"]) as disk,
        Tree(disk.name) as tree,
        mounted("mf1", "/" + disk.name) as point,
    ):
        tree.maildir("u", new=4, cur=40)
        plain = os.path.join(point, tree.name)
        with Host("mf1", tree) as host:
            assert_right(tree, host)
            full = Full(kind, disk)
            full.fill()
            seen = [delivery(os.path.join(w, U), "25.full", body) for w in (plain, host.mnt)]
            print(f"{kind}: plain NFS: {seen[0]}, mount: {seen[1]}")
            assert seen[0] == seen[1] and seen[0][1] == error
            assert_right(tree, host)
            assert os.listdir(host.up(U, "tmp")) == os.listdir(tree.on(U, "tmp")) == []
            for where in (plain, host.mnt):
                maildir = os.path.join(where, U)
                take(maildir, tree.real("u", "new")[0])
                flag(maildir, tree.real("u", "cur")[0])
                expunge(maildir, tree.real("u", "cur")[-1])
                assert_right(tree, host)
            full.empty()
            assert [delivery(os.path.join(w, U), f"26.{n}", body) for n, w in enumerate((plain, host.mnt))] == [None] * 2
            all_works(tree, host, plain, "space")


# -- the storage fails over: a replica takes over, older than what it replaces


BACK_S = 60


def test_failover_with_another_fsid():
    """All handles are stale: errors, never an empty or an old listing, until the mail is mounted again; then what the
    replica holds."""
    with server.Disk() as disk, Tree(disk.name) as tree:
        tree.maildir("u", new=3, cur=40)
        with Host("mf1", tree) as host:
            assert_right(tree, host)
            disk.copy()
            deliver(host.up(U), "27.lost")
            flag(host.up(U), tree.real("u", "cur")[0])
            assert_right(tree, host)
            with server.clock_back(BACK_S):
                disk.fail_over(fsid=12)
                plain = [seen_by(os.path.join(host.root, U, half)) for half in ("new", "cur")]
                mount = [seen_by(host.up(U, half)) for half in ("new", "cur")]
                print(f"another fsid: plain NFS: {plain}, mount: {mount}")
                assert mount == plain == ["ESTALE"] * 2
                host.remount()
                assert "27.lost" not in tree.real("u", "new")
                assert_right(tree, host)
                all_works(tree, host, host.root, "over")


def test_failover_with_the_same_fsid():
    """Clients notice nothing but that the times went back."""
    with server.Disk() as disk, Tree(disk.name) as tree:
        tree.maildir("u", new=3, cur=2500)
        with Host("mf1", tree) as host, Host("mf2", tree) as other:
            assert_right(tree, host, other)
            disk.copy()
            deliver(host.up(U), "27.lost")
            take(host.up(U), tree.real("u", "new")[0])
            for name in tree.real("u", "cur")[:5]:
                flag(host.up(U), name)
            assert_right(tree, host, other)
            with server.clock_back(BACK_S):
                disk.fail_over(fsid=11)
                assert "27.lost" not in tree.real("u", "new")
                assert_right(tree, host, other)
                for n in range(3):
                    all_works(tree, host, host.root, f"over{n}")
                    all_works(tree, other, host.mnt, f"other{n}")
            all_works(tree, host, host.root, "clock")


def changed_twice_in_a_second(tree, host, tag):
    """The listing between the two must be made again once the second is over."""
    for n in range(3):
        begun = int(time.time())
        until("a new second", lambda b=begun: int(time.time()) != b and time.time() % 1 < 0.3)
        put(tree.on(U, "new", f"29.{tag}{n}"))
        seen = host.listed("u", "new")
        put(tree.on(U, "new", f"29.{tag}{n}.second"))
        print(f"{time.time():.3f}: {len(seen)} of {len(tree.real('u', 'new'))}, {os.stat(tree.on(U, 'new')).st_ctime_ns}")
        end = time.monotonic() + 10
        while host.listed("u", "new") != tree.real("u", "new"):
            assert time.monotonic() < end, "the second change is never seen"
            time.sleep(0.1)


@pytest.mark.parametrize("age_s", [0, 300])
def test_clock_back_where_times_are_whole_seconds(age_s):
    """What was seen of the server's clock must not make young changes look old. age_s: how old the folder is: a younger
    one shows by itself that the clock went back."""
    with server.Disk("-I", "128") as disk, Tree(disk.name) as tree:
        with server.clock_back(age_s):
            tree.maildir("u", new=1)
        tree.maildir("other", new=1)
        with Host("mf1", tree) as host:
            for user in ("u", "other"):
                assert host.listed(user, "new") == tree.real(user, "new")
            changed_twice_in_a_second(tree, host, "before")
            with server.clock_back(BACK_S):
                changed_twice_in_a_second(tree, host, "back")

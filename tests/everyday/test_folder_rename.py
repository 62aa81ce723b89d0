# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder is renamed through the mount (IMAP RENAME, mv of a mailbox): what the index holds of it follows, so that its
listings still come from memory; and whatever overtakes whatever, they are right."""

import os
import shutil
import struct
import time

import pytest

from daemon import message, put_str
from host import RENAME_EXCHANGE, Maildex, base, eventually, ls, rename2, touch

RENAME = 14
WINDOW_LATE_S = 0.1  # LIVE_BURST_LATE_NS: a window that closes later proves nothing
MANY = 2500  # from window_min on, own changes raise what the listing stands for


@pytest.fixture
def host(request):
    with Maildex(confirm="1h", **getattr(request, "param", {})) as m:
        m.maildir("u")
        m.start()
        m.fs_start()
        yield m
        m.fs_end()


def at_rest(row):
    """Nobody will list it again of their own accord."""
    return row and not row["need"] and not row["unsettled"]


def folder(m, path, n, first=0):
    m.maildir(path)
    names = m.fill(path, "cur", n, first)
    m.fill(path, "new", 3, first + n)
    m.proven(path, "cur")
    m.proven(path, "new")
    eventually("the index to hold it", lambda: at_rest(m.row(path, 0)) and at_rest(m.row(path, 1)))
    return names


def listings(m):
    with m.client() as c:
        return m.count("lower.listings") + int(c.status()["lower.listings"])


def renamed(m, n=1):
    def done():
        with m.client() as c:
            return int(c.status()["renames"]) >= n

    eventually("maildexd to hear of it", done)


def flag(m, path, name):
    new = name.split(":")[0] + ":2,FS"
    os.rename(m.up(path, "cur", name), m.up(path, "cur", new))
    return new


def lives_on(host, path, large):
    """Changes, and a listing. Returns true if the machine did not pause: then a large folder was not listed below."""
    before = listings(host)
    names = [n.decode() for n in sorted(ls(host.low(path, "cur")))]
    start = time.monotonic()
    flag(host, path, names[0])
    os.unlink(host.up(path, "cur", names[1]))
    host.same(path, "cur")
    in_time = time.monotonic() - start < WINDOW_LATE_S
    assert listings(host) == before or not large or not in_time
    return in_time or not large


@pytest.mark.parametrize(
    "old, new, below",
    [
        ("u/.A", "u/.B", [""]),
        ("u/.A", "u/.B.C", [""]),
        ("u", "v", ["/.A", "/.A.B"]),
        ("example.org", "example.net", ["/u", "/u/.A", "/w"]),
        ("example.org/u/.A", "u/.A", [""]),
    ],
)
def test_no_listing_below(host, old, new, below):
    os.makedirs(host.low("example.org"), exist_ok=True)
    for i, path in enumerate(below):
        folder(host, old + path, MANY if i == 0 else 20, 10000 * i)
    before = listings(host)
    os.rename(host.up(old), host.up(new))
    renamed(host)
    for path in below:
        for half in ("new", "cur"):
            assert host.same(new + path, half)
            # The server's own mtime, at once: the listing is proven under its new path too.
            own = os.stat(host.low(new + path, half)).st_mtime_ns
            assert os.stat(host.up(new + path, half)).st_mtime_ns == own
        eventually("the index to follow", lambda: host.row(old + path, 1) is None and at_rest(host.row(new + path, 1)))
    assert listings(host) == before
    # It goes on living there.
    large = len(ls(host.low(new + below[0], "cur"))) == MANY
    eventually("a moment without a pause", lambda: lives_on(host, new + below[0], large))


@pytest.mark.parametrize("host", [{"window_min": 100}], indirect=True)
def test_on_trust_too(host):
    """A window raised what the listing stands for: so it does under the new path."""
    names = folder(host, "u/.A", 300)
    flag(host, "u/.A", names[0])
    eventually("the row to be on trust", lambda: host.row("u/.A", 1)["trust"])
    before = listings(host)
    os.rename(host.up("u/.A"), host.up("u/.B"))
    renamed(host)
    host.same("u/.B", "cur")
    assert listings(host) == before and host.row("u/.B", 1)["trust"] == 1


def test_confirmed_under_its_new_path():
    with Maildex(confirm="2s", window_min="100") as m:
        m.maildir("u")
        m.start()
        m.fs_start()
        names = folder(m, "u/.A", 300)
        flag(m, "u/.A", names[0])
        eventually("the row to be on trust", lambda: m.row("u/.A", 1)["trust"])
        m.fs_end()  # only maildexd is left to do it
        with m.client() as c:
            c.send(message(RENAME, put_str("u/.A"), put_str("u/.B")))
            os.rename(m.low("u/.A"), m.low("u/.B"))
        eventually("the confirm scan", lambda: m.row("u/.B", 1) and not m.row("u/.B", 1)["trust"])


def test_the_old_name_is_used_again(host):
    folder(host, "u/.A", 400)
    for i in range(5):
        os.rename(host.up("u/.A"), host.up(f"u/.Old{i}"))
        for sub in ("", "new", "cur", "tmp"):
            os.mkdir(host.up("u/.A", sub))
        touch(host.up(f"u/.A/new/18{i:08}.M1P1.host"), b"x")
        assert len(host.same("u/.A", "new")) == 1 and not host.same("u/.A", "cur")
        assert len(host.same(f"u/.Old{i}", "cur")) == (400 if i == 0 else 0)
        assert len(host.same(f"u/.Old{i}", "new")) == (3 if i == 0 else 1)
    renamed(host, 5)
    for path in ("u/.A", "u/.Old0", "u/.Old4"):
        host.same(path, "new")
        host.same(path, "cur")


@pytest.mark.parametrize("silent", [False, True])
def test_over_what_was_there(host, silent):
    """Of a folder that went the index may still hold rows: by its name another one is found now."""
    folder(host, "u/.A", 300)
    folder(host, "u/.B", 200, 5000)
    shutil.rmtree((host.low if silent else host.up)("u/.B"))
    os.mkdir(host.low("u/.B"))  # rename(2) replaces an empty directory
    os.rename(host.up("u/.A"), host.up("u/.B"))
    assert len(host.same("u/.B", "cur")) == 300
    renamed(host)
    assert len(host.same("u/.B", "cur")) == 300
    os.rename(host.up("u/.B"), host.up("u/.A"))  # and back, at once
    assert len(host.same("u/.A", "cur")) == 300
    renamed(host, 2)
    assert len(host.same("u/.A", "cur")) == 300


def test_two_folders_change_places(host):
    """By a third name, and by RENAME_EXCHANGE (of which the index is told nothing)."""
    sizes = {"u/.A": 300, "u/.B": 200}
    for i, (path, n) in enumerate(sizes.items()):
        folder(host, path, n, 5000 * i)
    for _ in range(3):
        for old, new in (("u/.A", "u/.T"), ("u/.B", "u/.A"), ("u/.T", "u/.B")):
            os.rename(host.up(old), host.up(new))
        assert len(host.same("u/.A", "cur")) == 200 and len(host.same("u/.B", "cur")) == 300
        rename2(host.up("u/.A"), host.up("u/.B"), RENAME_EXCHANGE)
        assert len(host.same("u/.A", "cur")) == 300 and len(host.same("u/.B", "cur")) == 200
    with host.client() as c:
        host.idle(c)
    host.same("u/.A", "cur")


@pytest.mark.parametrize("host", [{"window_min": 50}, {"window_min": 100000}], indirect=True)
def test_changes_before_and_after_it_at_once(host):
    """Changes of the old path may still wait when the rename is applied, and those of the new one already."""
    names = folder(host, "u/.F0", 200)
    for i in range(40):
        old, new = f"u/.F{i}", f"u/.F{i + 1}"
        names[0] = flag(host, old, names[0])
        names.append(names.pop(0))
        os.unlink(host.up(old, "cur", names.pop(1)))
        os.rename(host.up(old), host.up(new))
        if i % 3 == 0:
            assert len(host.same(new, "cur")) == len(names)
        touch(host.up(new, "new", f"19{i:08}.M1P1.host"), b"x")
        names.append(f"19{i:08}.M1P1.host:2,")
        os.rename(host.up(new, "new", f"19{i:08}.M1P1.host"), host.up(new, "cur", names[-1]))
        assert {base(os.fsencode(n)) for n in names} == {base(n) for n in host.same(new, "cur")}
        if i % 7 == 6:
            host.fs_restart()
            host.same(new, "cur")
    with host.client() as c:
        host.idle(c)
    host.same("u/.F40", "cur")


def test_a_rename_that_never_was(host):
    """Told by somebody who is believed: rows are lost, no more."""
    folder(host, "u/.A", 300)
    folder(host, "u/.B", 200, 5000)
    with host.client() as c:
        c.send(message(RENAME, put_str("u/.A"), put_str("u/.B")))
    renamed(host)
    host.fs_restart()
    assert len(host.same("u/.A", "cur")) == 300 and len(host.same("u/.B", "cur")) == 200


@pytest.mark.parametrize(
    "old, new, rest",
    [
        ("", "u/.B", b""),
        ("u/.A", "", b""),
        ("/u", "v", b""),
        ("u/../v", "v", b""),
        ("u//v", "v", b""),
        ("u", "v/", b""),
        ("u", "v\0w", b""),
        ("u", "x" * 3073, b""),
        ("u", "v", b"more"),
    ],
)
def test_malformed_ones_are_refused(host, old, new, rest):
    folder(host, "u/.A", 20)
    with host.client() as c:
        c.send(message(RENAME, put_str(old), put_str(new), rest))
        assert c.error() == "RENAME: malformed" and c.recv() == b""
    with host.client() as c:
        c.send(message(RENAME, struct.pack("<I", 1000) + b"u"))
        assert c.error() == "RENAME: malformed"
        assert c.recv() == b""
    assert host.row("u/.A", 1)["need"] == 0

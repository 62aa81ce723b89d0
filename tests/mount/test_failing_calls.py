# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call that maildex makes below fails once, one at a time, while a mail owner delivers, reads, flags and expunges through
the mount. What the owner was told has happened has; no message is lost or in two places; a listing is an error or right,
also the very next one."""

import contextlib
import os
from errno import EIO, ENOSPC, ESTALE

import pytest

from daemon import BUILD, until
from faultfs import Faulty
from host import acting_as
from owner import BOXES, OWNER, Owner, calls

pytestmark = pytest.mark.skipif(BUILD.endswith("tsan"), reason="one call after the other: no races, and minutes")

KINDS = (
    "getattr access opendir readdir create open read write flush fsync getxattr link rename unlink mkdir rmdir"
).split()  # fmt: skip


@contextlib.contextmanager
def host(faults, conf):
    with Faulty(faults=faults, revalidate="1ms", **conf) as m:
        os.chmod(m.made, 0o777)
        m.start()
        m.fs_start()
        until("the connection", lambda: m.fs_status()["maildexfs.maildexd"] == "connected")
        yield m


@pytest.fixture(scope="module")
def plain():
    """A client that keeps nothing."""
    with host({}, {}) as m:
        yield m


@pytest.fixture(scope="module")
def windows():
    """One that keeps attributes and names for a while; windows around own changes."""
    with host({"attr_ms": 3000, "entry_ms": 1000}, {"window_min": 1}) as m:
        yield m


@pytest.fixture(params=["plain", "windows"])
def m(request):
    return request.getfixturevalue(request.param)


def run(m, order, kind, allowed, **which):
    """A day in which the nth such call fails, and what goes well behind it. order: None, or m.faults.fail or .lose."""
    owner = Owner(m, BOXES.next(), allowed)
    with acting_as(OWNER):
        owner.make_mailbox()
        if order:
            order(kind, owner.box + "*", allowed[0], **which)
        owner.lives()
        m.faults.clear()
        owner.allowed = ()
        owner.goes_on()
    return owner


def each(m, order, kind, errors, times=1):
    """One run for every call of that kind."""
    wrong = []
    for n in range(1, calls(m).get(kind, 0) + 1):
        try:
            run(m, order, kind, errors, nth=n, times=times)
        except AssertionError as e:
            wrong.append(f"{kind} {n}: {e}")
    assert not wrong, "\n".join(wrong)


def test_no_call_fails(m):
    owner = run(m, None, None, ())
    assert not owner.failed
    assert set(calls(m)) - {"release", "releasedir"} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nth_call_fails(m, kind):
    each(m, m.faults.fail, kind, (EIO,))


TRIED_AGAIN = "getattr access opendir readdir open read link rename unlink".split()


@pytest.mark.parametrize("error", [EIO, ESTALE])
@pytest.mark.parametrize("kind", TRIED_AGAIN)
def test_the_nth_call_fails_twice(windows, kind, error):
    """The kernel tries these again by itself."""
    each(windows, windows.faults.fail, kind, (error, EIO), times=2)


@pytest.mark.parametrize("kind", ["create", "write", "fsync", "link", "rename", "mkdir"])
def test_the_nth_call_finds_no_space(m, kind):
    each(m, m.faults.fail, kind, (ENOSPC,))


@pytest.mark.parametrize("kind", ["link", "rename", "unlink", "mkdir", "rmdir"])
def test_the_nth_call_is_done_but_its_answer_is_lost(m, kind):
    each(m, m.faults.lose, kind, (EIO,))

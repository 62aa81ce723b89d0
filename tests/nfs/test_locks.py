# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks between mail-fetch hosts: each through its mount, and one of them on plain NFS."""

import fcntl
import os

import pytest

from daemon import until
from lab import OWNER, VERSION, Host, Tree, as_owner

EX, SH, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB
CALLS = {"fcntl": fcntl.lockf, "flock": fcntl.flock}
NO_NLM = (
    "NFS 3: lockd of each host (network namespace) tells the one rpcbind of the machine where it listens, through its "
    "socket's path, and overwrites the server's line; so the lab mounts with nolock"
)

pytestmark = pytest.mark.skipif(VERSION == "3", reason=NO_NLM)


@pytest.fixture(name="hosts", scope="module")
def _hosts():
    with Tree() as tree:
        tree.maildir("u")
        with open(tree.on("u/Maildir/lockfile"), "xb") as f:
            f.write(b"x" * 100)
            os.fchown(f.fileno(), OWNER, OWNER)
        with Host("mf1", tree) as one, Host("mf2", tree) as two:
            yield one, two


@pytest.fixture(name="pair", params=["mount and mount", "mount and plain", "plain and mount"])
def _pair(hosts, processes, request):
    """Two processes on two hosts, each with the file open."""
    out = []
    with as_owner():
        for host, how in zip(hosts, request.param.split(" and ")):
            process = processes()
            top = host.mnt if how == "mount" else os.path.join(host.nfs, host.tree.name)
            out.append((process, process(os.open, os.path.join(top, "u/Maildir/lockfile"), os.O_RDWR)))
    return out


@pytest.mark.parametrize("call", CALLS)
def test_they_exclude_each_other(pair, call):
    (one, a), (two, b) = pair
    one(CALLS[call], a, EX)
    assert not two.had(CALLS[call], b)
    one(CALLS[call], a, UN)
    assert two.had(CALLS[call], b)
    assert not one.had(CALLS[call], a)


@pytest.mark.parametrize("call", CALLS)
def test_shared_ones_do_not(pair, call):
    (one, a), (two, b) = pair
    for process, fd in pair:
        process(CALLS[call], fd, SH | NB)
    assert not one.had(CALLS[call], a)
    assert not two.had(CALLS[call], b)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("how", ["close", "kill"])
def test_they_end_with_their_owner(pair, call, how):
    (one, a), (two, b) = pair
    one(CALLS[call], a, EX)
    assert not two.had(CALLS[call], b)
    if how == "close":
        one(os.close, a)
    else:
        one.kill()
    until("the lock to be free", lambda: two.had(CALLS[call], b))


@pytest.mark.parametrize("call", CALLS)
def test_who_waits_gets_it(pair, call):
    (one, a), (two, b) = pair
    one(CALLS[call], a, EX)
    two.begin(CALLS[call], b, EX)
    assert not two.answers(1)
    one(CALLS[call], a, UN)
    two.end()
    assert not one.had(CALLS[call], a)


def test_parts_of_a_file(pair):
    """fcntl: each byte for itself, as mail servers lock their indexes."""
    (one, a), (two, b) = pair
    one(fcntl.lockf, a, EX, 10, 0)
    two(fcntl.lockf, b, EX | NB, 10, 10)
    assert not two.had(fcntl.lockf, b)
    one(fcntl.lockf, a, UN, 10, 0)
    assert two.had(fcntl.lockf, b)

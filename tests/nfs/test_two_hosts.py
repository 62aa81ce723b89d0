# SPDX-License-Identifier: GPL-2.0-or-later
"""Two mail-fetch hosts on one tree, each with an NFS client, maildexd, index and mount of its own, and no bus between
them; others change the tree without telling anybody. Attribute caches are at their default times."""

import contextlib
import os
import random

import pytest

from daemon import until
from lab import Host, Tree, as_owner, mounted

USER, LARGE, ROUNDS = "u", "large", 120


@pytest.fixture(name="fleet", scope="module")
def _fleet():
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(Tree())
        tree.maildir(USER, new=3, cur=40)
        tree.maildir(LARGE, new=3, cur=3000)
        # `confirm`: what may hide in a window of a large folder is found by it.
        hosts = [stack.enter_context(Host(name, tree, confirm="2s")) for name in ("mf1", "mf2")]
        plain = os.path.join(stack.enter_context(mounted("mi1")), tree.name)
        yield tree, hosts, plain


def maildir(where, user):
    return os.path.join(where, user, "Maildir")


def deliver(where, user, name):
    path = maildir(where, user)
    with open(f"{path}/tmp/{name}", "xb") as f:
        f.write(b"Subject: x\n\nbody\n")
    os.rename(f"{path}/tmp/{name}", f"{path}/new/{name}")


def take(where, user, tree):
    """The oldest of new/ goes to cur/."""
    name = tree.real(user, "new")[0]
    os.rename(f"{maildir(where, user)}/new/{name}", f"{maildir(where, user)}/cur/{name}:2,")


def flag(where, user, tree, at=0):
    name = tree.real(user, "cur")[at]
    other = name[:-1] if name.endswith("T") else name + "T"
    os.rename(f"{maildir(where, user)}/cur/{name}", f"{maildir(where, user)}/cur/{other}")


def expunge(where, user, tree, at=0):
    os.unlink(f"{maildir(where, user)}/cur/{tree.real(user, 'cur')[at]}")


def assert_seen_at_once(fleet, user, what):
    tree, hosts, _ = fleet
    for half in ("new", "cur"):
        real = tree.real(user, half)
        for host in hosts:
            assert host.listed(user, half) == real, f"{what}: {half} on {host.conf['host']}"


@pytest.mark.parametrize("user", [USER, LARGE])
@pytest.mark.parametrize("actor", ["another NFS client", "the server", "mf1", "mf2"])
@as_owner()
def test_each_change_is_in_the_next_listing(fleet, user, actor):
    tree, hosts, plain = fleet
    where = {"another NFS client": plain, "the server": tree.path, "mf1": hosts[0].mnt, "mf2": hosts[1].mnt}[actor]
    assert_seen_at_once(fleet, user, "before")
    changes = {
        "delivery": lambda: deliver(where, user, f"18{len(actor)}.{actor.replace(' ', '')}"),
        "from new to cur": lambda: take(where, user, tree),
        "flag": lambda: flag(where, user, tree),
        "flag of another": lambda: flag(where, user, tree, -1),
        "expunge": lambda: expunge(where, user, tree),
    }
    for what, change in changes.items():
        change()
        assert_seen_at_once(fleet, user, f"{what} by {actor}")


def base(name):
    return name.split(":")[0]


@pytest.mark.parametrize("user", [USER, LARGE])
@as_owner()
def test_random_changes_by_everybody(fleet, user):
    """Two changes in one tick of the server's clock may take a moment; what was there all the time is always listed, once."""
    tree, hosts, plain = fleet
    rng = random.Random(5)
    places = [plain, tree.path, hosts[0].mnt, hosts[1].mnt]
    for i in range(ROUNDS):
        before = {base(n) for half in ("new", "cur") for n in tree.real(user, half)}
        for _ in range(rng.randrange(1, 4)):
            where, kind = rng.choice(places), rng.choice(("deliver", "take", "flag", "flag", "expunge"))
            if kind == "deliver" or (kind == "take" and not tree.real(user, "new")) or not tree.real(user, "cur"):
                deliver(where, user, f"19{i}.{rng.random()}")
            elif kind == "take":
                take(where, user, tree)
            else:
                {"flag": flag, "expunge": expunge}[kind](where, user, tree, rng.randrange(len(tree.real(user, "cur"))))
        stayed = before & {base(n) for half in ("new", "cur") for n in tree.real(user, half)}
        for host in hosts:
            names = [base(n) for half in ("new", "cur") for n in host.listed(user, half)]
            assert stayed <= set(names), f"round {i}: not listed: {stayed - set(names)}"
            assert len(names) == len(set(names)), f"round {i}: listed twice"
        for host in hosts:
            for half in ("new", "cur"):
                until("the listing to be the disk's", lambda h=host, f=half: h.listed(user, f) == tree.real(user, f))

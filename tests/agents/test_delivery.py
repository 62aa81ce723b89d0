# SPDX-License-Identifier: GPL-2.0-or-later
"""Every agent through the mount, below it with inotify, and below it with its hook."""

import os
import threading

import pytest

from agents import DovecotLda, DovecotLmtp, Fetchmail, Getmail, GetmailDeliver, GetmailMaildrop, Maildrop, Procmail
from daemon import until
from mta import Exim, Postfix, PostfixCommand, PostfixDeliver, PostfixPipe, PostfixVirtual
from place import MESSAGES, Place, facts, marker, messages, others, text
from host import ls

AGENTS = [
    Maildrop,
    Procmail,
    Postfix,
    PostfixVirtual,
    PostfixCommand,
    PostfixPipe,
    Exim,
    DovecotLda,
    DovecotLmtp,
    Fetchmail,
    Getmail,
    GetmailMaildrop,
    GetmailDeliver,
]
every = pytest.mark.parametrize("agent", AGENTS, ids=lambda a: a.__name__)
hooked = [a for a in AGENTS if a.has_hook] + [PostfixDeliver]
with_hook = pytest.mark.parametrize("agent", hooked, ids=lambda a: a.__name__)


@every
def test_through_the_mount(agent):
    """What is left in the tree is what the same agent leaves in a plain one, and it is listed at once."""
    both = () if issubclass(agent, PostfixPipe) else (text("both", b"for two\n"),)  # its mailboxes belong to one user
    sent = {name: MESSAGES[name] for name in MESSAGES if name != "endless" or not agent.breaks_lines}
    with Place() as p:
        with agent(p, p.plain) as plain:
            plain.deliver_all(sent.values(), "anna")
            for message in both:
                plain.deliver(message, "anna", "bert")
        expected = facts(p.plain), others(p.plain)
        for mode in ("beside", "over"):
            with Place(mode) as m:
                m.start()
                m.fs_start()
                with agent(m, m.conf["mount"]) as mounted:
                    for name, message in sent.items():
                        mounted.deliver(message, "anna")
                        at_once = messages(m.up("anna/Maildir"))
                        assert name in {marker(read(path)) for path in at_once}
                        m.same("anna/Maildir/new")
                    for message in both:
                        mounted.deliver(message, "anna", "bert")
                        m.same("bert/Maildir/new")
                assert facts(m.low()) == expected[0]
                assert others(m.low()) == expected[1]
                whole(m)


def whole(p):
    """Nothing is cut, added or changed in what was written."""
    found = {marker(data): data for data in map(read, messages(p.low("anna/Maildir")))}
    for name in found.keys() & MESSAGES.keys():
        assert found[name].split(b"\n\n", 1)[1] == MESSAGES[name].split(b"\n\n", 1)[1], name


def read(path):
    with open(path, "rb") as f:
        return f.read()


def count(p):
    return len(messages(p.low("anna/Maildir")))


@with_hook
def test_below_with_the_hook(agent):
    with Place() as p:
        p.start()
        p.fs_start()
        with agent(p, p.root, hook=True) as a:
            p.settled()
            with p.heard("anna"):
                a.deliver(MESSAGES["small"], "anna")
            p.same("anna/Maildir/new")
            # Whatever becomes of the notice, the delivery is good, and it is not done twice.
            with p.stopped():
                a.deliver(MESSAGES["dots"], "anna")
            assert count(p) == 2
            p.kill()
            a.deliver(MESSAGES["8bit"], "anna")
            assert count(p) == 3
            os.unlink(p.notify)
            a.deliver(MESSAGES["long"], "anna")
            assert count(p) == 4
            p.same("anna/Maildir/new")
            whole(p)


@every
def test_below_with_inotify(agent):
    """Nothing is in the agent's configuration, and maildexd hears of it all the same."""
    with Place(watch="inotify") as p:
        p.start()
        p.fs_start()
        with agent(p, p.root) as a:
            p.settled()
            with p.client() as c:
                until("the folders to be watched", lambda: c.status()["inotify.state"] == "watching")
            with p.heard("anna", by_name=True):
                a.deliver(MESSAGES["small"], "anna")
            p.same("anna/Maildir/new")


@every
def test_many_at_once(agent):
    """Fifty for one mailbox, which is listed all the time."""
    many = [text(f"no{i}", b"one of many\n") for i in range(50)]
    with Place() as p:
        p.start()
        p.fs_start()
        with agent(p, p.mnt) as a, Listing(p.up("anna/Maildir/new")) as listing:
            a.deliver_all(many, "anna")
        assert listing.rounds
        assert len(p.same("anna/Maildir/new")) == len(many)
        assert {key[2] for key in facts(p.low())} == {marker(message) for message in many}


class Listing(threading.Thread):
    """Lists a folder all the time: no name twice, and none that was listed is missing later."""

    def __init__(self, path):
        super().__init__()
        self.path, self.rounds, self.lost, self.over = path, 0, set(), threading.Event()

    def run(self):
        before = set()
        while not self.over.is_set():
            names = ls(self.path)
            self.lost |= before - names
            before, self.rounds = names, self.rounds + 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        assert not self.lost

# SPDX-License-Identifier: GPL-2.0-or-later
"""Dovecot with its indexes on the mount, under each of its kinds of locks, and with indexes elsewhere: several sessions
at once on one mailbox get right answers, no index is reported damaged, and no lock is waited for in vain. (What Dovecot
logs as a warning or an error fails the test: dovecot.py.)"""

import contextlib
import glob
import os
import random
import re
import signal
import sys
import threading
import time

import pytest

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "load"))
from audit import audit  # noqa: E402
from busy import Busy, crlf, fetched, flags_of, message  # noqa: E402
from crowd import Crowd, Place, prepare, work  # noqa: E402
from dovecot import Dovecot  # noqa: E402
from host import acting_as  # noqa: E402

SESSIONS, STEPS = 6, 60
KILLED = re.compile(r"service\(imap\): child \d+ killed with signal 9")
ON_MOUNT = {
    "fcntl": {"mmap_disable": "yes", "lock_method": "fcntl"},
    "flock": {"mmap_disable": "yes", "lock_method": "flock"},
    "dotlock": {"mmap_disable": "yes", "lock_method": "dotlock"},
    "nfs": {"mmap_disable": "yes", "mail_nfs_storage": "yes", "mail_nfs_index": "yes", "mail_fsync": "always"},
    "defaults": {},
}


@pytest.fixture(name="place")
def a_place():
    with Place(1) as place:
        yield place.open()


@pytest.fixture(name="elsewhere")
def a_folder_for_indexes(place):
    path = os.path.join(place.dir, "indexes")
    os.mkdir(path)
    os.chmod(path, 0o1777)
    return path


def dovecot(place, **settings):
    return Dovecot(os.path.join(place.dir, "dovecot"), place.accounts, **settings)


def index_files(top):
    return {n for _, _, names in os.walk(top) for n in names if n.startswith("dovecot.index")}


def several_sessions(place, server, *beside):
    """They work on messages of their own; beside: work for more threads until they are done."""
    (ledger,) = prepare(server, place.accounts)
    workers = [Busy(server, ledger, f"w{i}") for i in range(SESSIONS)]
    crowd, running = Crowd(), [len(workers)]
    lock = threading.Lock()

    def work_and_count(over, worker):
        work(over, worker, STEPS)
        with lock:
            running[0] -= 1
            if not running[0]:
                over.set()

    for w in workers:
        crowd.add(work_and_count, w)
    for more in beside:
        crowd.add(more)
    crowd.run()
    assert all(w.commands > STEPS for w in workers)
    assert audit(server, ledger, workers, (), place.low(place.accounts[0].name, "Maildir"))


@pytest.mark.parametrize("how", [pytest.param(h, marks=[pytest.mark.nfs] if h == "fcntl" else []) for h in ON_MOUNT])
def test_indexes_on_the_mount(place, how):
    with dovecot(place, **ON_MOUNT[how]) as server:
        several_sessions(place, server)
    assert index_files(place.made) >= {"dovecot.index.log", "dovecot.index.cache"}


@pytest.mark.parametrize("how", ["fcntl", "dotlock", "memory"])
def test_indexes_elsewhere(place, elsewhere, how):
    """On local disk, or in memory."""
    indexes = "MEMORY" if how == "memory" else elsewhere + "/%{user}"
    with dovecot(place, indexes=indexes, lock_method="fcntl" if how == "memory" else how) as server:
        several_sessions(place, server)
    assert not index_files(place.made)
    assert bool(index_files(elsewhere)) == (how != "memory")


@pytest.mark.parametrize("how", ["fcntl", "flock", "dotlock"])
def test_sessions_change_the_same_messages(place, how):
    """Each marks all messages with a keyword of its own, in an order of its own, while messages between them go and
    others come: at the end each message has all keywords, and all sessions are of one mind."""
    account = place.accounts[0]
    with dovecot(place, **ON_MOUNT[how]) as server:
        (ledger,) = prepare(server, [account])
        first = Busy(server, ledger, "first")
        first.login()
        for i in range(60):
            first.command("APPEND INBOX {}", crlf(message(f"first-{i}")))
        sessions = [Busy(server, ledger, f"s{i}") for i in range(4)]
        for s in sessions:
            s.login()
        crowd = Crowd()
        for s in sessions:
            crowd.add(_mark_all, s, 40)
        crowd.add(_come_and_go, first)
        crowd.run()
        seen = []
        for s in [*sessions, first]:
            s.command("NOOP")
            seen.append({uid: flags_of(line) for uid, line in fetched(s.command("UID FETCH 1:* (FLAGS)")).items()})
            s.logout()
        assert sorted(seen[0]) == [*range(1, 41), *range(61, 81)]
        assert all(seen[0][uid] == {f"$s{i}" for i in range(4)} for uid in range(1, 41)), seen[0]
        assert all(s == seen[0] for s in seen), seen
    assert place.same(account, "Maildir", "cur")


def _mark_all(_, session, last):
    uids = list(range(1, last + 1))
    session.rng.shuffle(uids)
    for uid in uids:
        session.command(f"UID STORE {uid} +FLAGS (${session.name})")


def _come_and_go(_, session):
    """Messages 41 to 60 go, one by one; 20 others come."""
    for i in range(20):
        session.command(f"UID STORE {41 + i} +FLAGS.SILENT (\\Deleted)")
        session.command("EXPUNGE")
        session.command("APPEND INBOX {}", crlf(message(f"later-{i}")))


def unlock(over, account, maildir):
    """Dovecot makes a lock file and then writes its pid into it. Who was killed in between left an empty one, which the
    others take for stale after two minutes only, on any filesystem: it is taken away."""
    while not over.wait(0.2):
        with acting_as(account.uid):
            for path in glob.glob(maildir + "/**/*.lock", recursive=True, include_hidden=True):
                with contextlib.suppress(FileNotFoundError):
                    st = os.stat(path)
                    if not st.st_size and time.time() - st.st_ctime > 1:
                        os.unlink(path)


@pytest.mark.parametrize("how", ["fcntl", "flock", "dotlock"])
def test_a_killed_process_is_in_nobody_s_way(place, how):
    """Sessions that synchronize the mailbox are killed, with whatever lock they hold; the others go on."""
    account, killed = place.accounts[0], []
    with dovecot(place, **ON_MOUNT[how]) as server:
        server.allowed.append(KILLED)
        rng = random.Random(how)

        def victims(over):
            while not over.is_set():
                talk = server.imap(account)
                pid = server.pid_of(talk)
                talk.imap("SELECT INBOX")
                for _ in range(rng.randrange(20)):
                    talk.imap("NOOP")
                talk.imap_send("FETCH 1:* (FLAGS BODY.PEEK[])")
                over.wait(rng.random() / 100)
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                talk.close()

        several_sessions(place, server, victims, lambda over: unlock(over, account, place.low(account.name, "Maildir")))
    assert len(killed) > 3

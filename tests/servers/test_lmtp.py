# SPDX-License-Identifier: GPL-2.0-or-later
"""Dovecot's LMTP delivers through the mount: the files are those that it makes on a plain tree, nothing of many
deliveries at once is lost or doubled, and an open IMAP session sees each at its next command."""

import collections
import os
import re
import stat
import sys

import pytest

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "load"))
from busy import Busy, crlf, message  # noqa: E402
from crowd import Crowd, Place, prepare  # noqa: E402
from dovecot import Dovecot, lmtp_deliver  # noqa: E402

EXTRA = """
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
protocol lmtp {
  mail_plugins = quota
}
[2.3] plugin {
[2.3]   quota = maildir:User quota
[2.3]   quota_rule = *:storage=1M
[2.3] }
[2.4] quota "User quota" {
[2.4]   quota_driver = maildir
[2.4]   quota_storage_size = 1M
[2.4]   quota_storage_grace = 0
[2.4] }
"""
NAME = re.compile(r"(\d+)\.M\d+P\d+\.[^,:]*(,S=\d+,W=\d+)?((?::.*)?)$")
# What a delivery puts into the message, of the moment.
OF_THE_MOMENT = re.compile(rb"\tid \S+\n|; \w{3}, .*\n")


def dovecot(place, **settings):
    return Dovecot(os.path.join(place.dir, "dovecot"), place.accounts, extra=EXTRA, **settings)


def files(top):
    """A line a file: what of it is not of the moment."""
    lines = []
    for path, _, names in os.walk(top):
        half = os.path.basename(path) in ("new", "cur")
        lines.append(f"{os.path.relpath(path, top)}: {stat.filemode(os.stat(path).st_mode)}")
        for name in names:
            st, content = os.stat(os.path.join(path, name)), ""
            if half:
                with open(os.path.join(path, name), "rb") as f:
                    content = OF_THE_MOMENT.sub(b"", f.read()).decode()
                name = NAME.sub(r"TIME.host\2\3", name)
            elif name in ("dovecot-uidlist", "maildirsize", "subscriptions"):
                with open(os.path.join(path, name), encoding="ascii") as f:
                    content = re.sub(r"G[0-9a-f]{32}|V\d+|\d+\.M\d+P\d+\.[^,:]*", "_", f.read())
            name = re.sub(r"^(dovecot-uidvalidity)\..*", r"\1.HEX", name)
            owner = f"{stat.filemode(st.st_mode)} {st.st_uid}:{st.st_gid} {st.st_nlink}"
            lines.append(f"{os.path.relpath(path, top)}/{name}: {owner} {content}")
    return sorted(lines)


def some_deliveries(place):
    """To one, to two at once, to a folder that is not there yet, one that is too large; returns the answers."""
    with dovecot(place) as server:
        a, b = place.accounts
        talk, said = server.lmtp(), []
        lmtp_deliver(talk, crlf(message("to-one")), a)
        lmtp_deliver(talk, crlf(message("to-both")), a, b)
        lmtp_deliver(talk, crlf(b"Subject: empty\n\n"), b)
        for recipient, data in (
            (f"{a.name}+Folder", message("to-folder")),
            ("nobody", None),
            (f"{b.name}", message("large") + b"x" * 70 * 1024 * 20),
        ):
            talk.send(f"MAIL FROM:<s@example.org>\r\nRCPT TO:<{recipient}>\r\n".encode())
            said += [talk.line(), talk.line()]
            if data:
                talk.send(b"DATA\r\n")
                said.append(talk.line())
                talk.send(crlf(data) + b"\r\n.\r\n")
                said.append(talk.line())
            talk.send(b"RSET\r\n")
            said.append(talk.line())
        said = [re.sub(rb"^(250 2.0.0 \S+) \S+ ", rb"\1 ", line) for line in said]
    return said, files(place.made)


@pytest.mark.nfs
def test_as_on_a_plain_tree():
    with Place(2, plain=True) as plain, Place(2) as place:
        said, left = some_deliveries(plain.open())
        assert any(line.startswith(b"552 ") for line in said), said
        assert sum("/new/" in line for line in left) == 5, left
        assert some_deliveries(place.open()) == (said, left)


@pytest.mark.parametrize("settings", [{}, {"mmap_disable": "yes", "lock_method": "dotlock", "mail_nfs_storage": "yes"}])
def test_many_at_once(settings):
    """Eight connections to three mailboxes, every fifth message to all: each is where it belongs, once."""
    with Place(3) as place, dovecot(place.open(), **settings) as server:
        want = collections.defaultdict(list)

        def deliver(_, i):
            talk = server.lmtp()
            for n in range(25):
                to = place.accounts if n % 5 == 0 else [place.accounts[(i + n) % 3]]
                lmtp_deliver(talk, crlf(message(f"d{i}-{n}")), *to)
                for a in to:
                    want[a].append(f"d{i}-{n}")

        crowd = Crowd()
        for i in range(8):
            crowd.add(deliver, i)
        crowd.run()
        ledgers = prepare(server, place.accounts)
        for a, ledger in zip(place.accounts, ledgers):
            assert len(place.same(a, "Maildir/new")) + len(place.same(a, "Maildir/cur")) == len(want[a])
            session = Busy(server, ledger, "reader")
            session.login()
            lines = session.command("UID FETCH 1:* (UID BODY.PEEK[])")
            found = [re.search(rb"X-Id: (\S+)\r\n", line) for line in lines]
            assert sorted(m[1].decode() for m in found if m) == sorted(want[a])
            assert all(crlf(message(m[1].decode())) in line for m, line in zip(found, lines) if m)
            session.logout()


def test_seen_by_open_sessions_at_once():
    """In the mailbox that is selected, at the next NOOP; in another one, by STATUS."""
    with Place(2) as place, dovecot(place.open()) as server:
        ledgers = prepare(server, place.accounts)
        talk = server.lmtp()
        here, there = (Busy(server, ledger, "reader") for ledger in ledgers)
        for session in (here, there):
            session.login()
        there.command("SELECT Other")
        for n in range(1, 41):
            lmtp_deliver(talk, crlf(message(f"d{n}")), *place.accounts)
            here.command("NOOP")
            assert here.exists == n
            assert b"(MESSAGES %d " % n in b"".join(there.command("STATUS INBOX (MESSAGES UIDNEXT)"))
            if n % 3 == 0:  # some go to cur/ with flags
                here.command(f"STORE {n} +FLAGS (\\Seen)")
        lines = here.command("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (X-Id)])")
        assert re.findall(rb"X-Id: (\S+)", b"".join(lines)) == [b"d%d" % n for n in range(1, 41)]

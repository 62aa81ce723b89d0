# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads of a minute each, on Courier and on Dovecot (make check-full). No answer is an error, no message is lost or
doubled, no UID is given twice, and memory is bounded (load.py)."""

import os
import sys

import pytest

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "servers"))
from load import SERVERS, busy_sessions, webmail  # noqa: E402

pytestmark = [pytest.mark.full, pytest.mark.parametrize("server", SERVERS)]


def test_two_sessions_on_one_mailbox(server, figures):
    figures(busy_sessions(server, sessions=2, mailboxes=1, seconds=30))


def test_fifty_sessions_on_twenty_mailboxes(server, figures):
    figures(busy_sessions(server, sessions=50, mailboxes=20, seconds=45))


def test_five_hundred_idle_and_fifty_busy(server, figures):
    figures(busy_sessions(server, sessions=50, mailboxes=20, idle=500, seconds=60))


def test_webmail_on_a_hundred_thousand_messages(server, figures):
    figures(webmail(server, messages=100000, users=4, seconds=45))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The loads of tests/load, each a few seconds long."""

import os
import sys

import pytest

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "load"))
from load import SERVERS, busy_sessions, webmail  # noqa: E402

pytestmark = pytest.mark.parametrize("server", SERVERS)


def test_two_sessions_on_one_mailbox(server):
    assert busy_sessions(server, sessions=2, mailboxes=1, seconds=3)["deliveries"]


def test_many_sessions_on_some_mailboxes(server):
    assert busy_sessions(server, sessions=10, mailboxes=4, seconds=4)["commands"]


def test_idle_and_busy(server):
    assert busy_sessions(server, sessions=6, mailboxes=3, idle=30, seconds=4)["sessions"] == 36


def test_webmail(server):
    assert webmail(server, messages=3000, users=2, seconds=4)["sessions"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What all suites of pytest share: the modules of tests/support, and these fixtures."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from host import Maildex  # noqa: E402


@pytest.fixture
def maildex():
    """A tree with one mailbox, u, not yet mounted: maildex.fs_start()."""
    with Maildex() as m:
        m.maildir("u")
        yield m


@pytest.fixture
def mounted(maildex):
    return maildex.fs_start()

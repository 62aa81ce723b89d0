# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from support import Maildex


@pytest.fixture
def maildex():
    """A tree with one mailbox, u, not yet mounted: maildex.fs_start()."""
    with Maildex() as m:
        m.maildir("u")
        yield m


@pytest.fixture
def mounted(maildex):
    return maildex.fs_start()

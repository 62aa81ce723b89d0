# SPDX-License-Identifier: GPL-2.0-or-later
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from host import Maildex  # noqa: E402
from twin import Twin  # noqa: E402


@pytest.fixture
def twin():
    """Both trees, empty; the mount answers, and maildexd keeps its index."""
    with Maildex() as m:
        t = Twin(m)
        m.start()
        m.fs_start()
        yield t
        m.fs_end()

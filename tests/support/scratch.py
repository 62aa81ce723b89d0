# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder for one test."""

import pathlib
import tempfile

import pytest


@pytest.fixture
def tmp_path():
    """Instead of pytest's own, which keeps the folders of the last three runs."""
    with tempfile.TemporaryDirectory(prefix="maildex-") as d:
        yield pathlib.Path(d)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What all suites of pytest share: the modules of tests/support, and these fixtures."""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from host import Maildex  # noqa: E402
from process import Process  # noqa: E402


@pytest.fixture
def maildex():
    """A tree with one mailbox, u, not yet mounted: maildex.fs_start()."""
    with Maildex() as m:
        m.maildir("u")
        yield m


@pytest.fixture
def mounted(maildex):
    return maildex.fs_start()


@pytest.fixture
def processes():
    """Makes processes and ends them."""
    made = []

    def make():
        made.append(Process())
        return made[-1]

    yield make
    for p in made:
        p.stop()


@pytest.fixture
def figures(request, record_property):
    """figures(dict): what was measured, printed at the end of the run."""

    def show(found):
        record_property("figures", f"{request.node.name}: " + ", ".join(f"{k} {v}" for k, v in found.items()))

    return show


def pytest_terminal_summary(terminalreporter):
    lines = [v for r in terminalreporter.stats.get("passed", []) for k, v in r.user_properties if k == "figures"]
    if lines:
        terminalreporter.section("measured")
        for line in sorted(lines):
            terminalreporter.write_line(line)

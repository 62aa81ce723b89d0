# SPDX-License-Identifier: GPL-2.0-or-later
"""stress-ng: directories, names, links, locks and watches under load, each call's answer checked (--verify)."""

import os
import re

import pytest

SHORT = ("dir", "dentry", "rename", "link", "flock", "inotify")
NO_FAILURE = re.compile(r"\b0 failed|failed: 0\b")  # as older and newer ones put it
LONG = (*SHORT, "symlink", "lockf", "lockofd", "filename", "chmod", "chown", "utime", "fstat", "touch", "xattr")


def stress(twin, stressor, where, seconds, workers):
    top = os.path.join(twin.mnt, where)
    before = sorted(os.listdir(top))
    argv = ("stress-ng", f"--{stressor}", str(workers), "--timeout", f"{seconds}s", "--verify", "--temp-path", ".")
    results = [twin.run_in(t, *argv, cwd=where) for t in (twin.plain, twin.mnt)]
    for code, out, err in results:
        said = (out + err).decode()
        assert code == 0 and "fail" not in NO_FAILURE.sub("", said), said
    assert sorted(os.listdir(top)) == before == sorted(os.listdir(os.path.join(twin.low, where)))
    twin.true(where)


@pytest.mark.parametrize("where", ["u/cur", "p"])
@pytest.mark.parametrize("stressor", SHORT)
def test_for_a_second(twin, stressor, where):
    twin.fill()
    stress(twin, stressor, where, 1, 1)


@pytest.mark.full
@pytest.mark.parametrize("where", ["u/cur", "p"])
@pytest.mark.parametrize("stressor", LONG)
def test_longer_and_all_at_once(twin, stressor, where):
    twin.fill()
    stress(twin, stressor, where, 10, 4)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What mail tools leave: names of messages that a tool makes hold the time and its process id, so two runs are compared
by where each message is, with which flags, and what it says."""

import os


def flags(name):
    return "".join(sorted(name.partition(":2,")[2]))


def left(folder, key=lambda data: data):
    """Sorted (half, flags, what key makes of the content)."""
    out = []
    for half in ("new", "cur", "tmp"):
        path = os.path.join(folder, half)
        for name in os.listdir(path):
            with open(os.path.join(path, name), "rb") as f:
                out.append((half, flags(name), key(f.read())))
    return sorted(out)


def subject(data):
    """Nothing twice in a folder: each message has its own."""
    return data.split(b"Subject: ", 1)[1].split(b"\n", 1)[0].decode()


def assert_mail(twin, *folders, key=lambda data: data):
    """The same mail in both trees, and what the mount lists is what is below."""
    for folder in folders:
        plain, mnt, low = (left(os.path.join(t, folder), key) for t in (twin.plain, twin.mnt, twin.low))
        assert plain == mnt == low, folder
        for half in ("new", "cur", "tmp"):
            twin.m.same(folder, half)

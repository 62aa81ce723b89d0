# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS calls by kind, as the kernel's client counts them for each mount."""

import collections
import os
import re
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from host import acting_as  # noqa: E402

Op = collections.namedtuple("Op", "count sent received", defaults=(0, 0, 0))  # calls, bytes, bytes
LINE = re.compile(r"\s+([A-Z][A-Z_0-9]*): (\d+) \d+ \d+ (\d+) (\d+) ")


def read(mountpoint):
    """{kind: Op} since it was mounted."""
    out, ours = {}, False
    with acting_as(0), open("/proc/self/mountstats", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            if line.startswith("device "):
                ours = f" mounted on {mountpoint} with " in line
            elif ours and (m := LINE.match(line)):
                out[m[1]] = Op(int(m[2]), int(m[3]), int(m[4]))
    assert out, f"{mountpoint} is not an NFS mount"
    return out


def diff(before, after):
    """What was called in between."""
    out = {}
    for kind, op in after.items():
        old = before.get(kind, Op())
        if op.count != old.count:
            out[kind] = Op(*(a - b for a, b in zip(op, old)))
    return out


def total(ops):
    return Op(*(sum(op[i] for op in ops.values()) for i in range(3)))

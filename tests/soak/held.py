# SPDX-License-Identifier: GPL-2.0-or-later
"""What both programs hold: memory, descriptors, threads, and what maildexfs knows of the tree."""

import collections
import os
import re
import statistics
import time
from dataclasses import dataclass

from daemon import BUILD, WAIT_S, until

# Sanitizers keep what was freed for long.
MEMORY_SAYS_SOMETHING = not BUILD.endswith(("asan", "tsan"))
# Between the middle and the last third of a run, the medians: one look may meet a moment's work. What a program needs it has
# needed by then, but more of its workers may be busy at once than ever before: a connection to the index, with up to 2 MB of
# its pages, or a buffer.
# In a million operations it is 3 bytes for each.
SLACK_KB = 1024


@dataclass
class Process:
    anon_kb: int
    rss_kb: int
    threads: int
    fds: collections.Counter  # what is open, but the index
    index_fds: int  # one connection has two; a pool keeps those that a crowd of threads needed


@dataclass
class Held:
    """When all sessions hold nothing, and maildexd has nothing left to do."""

    fs: Process
    daemon: Process
    folders: int  # halves in memory
    nodes: int  # inodes that the kernel knows through the mount
    evicted: int

    def __str__(self):
        both = ("maildexfs", self.fs), ("maildexd", self.daemon)
        text = [f"{n} {p.anon_kb} KB, {p.fds.total()}+{p.index_fds} descriptors, {p.threads} threads" for n, p in both]
        return f"{self.nodes} nodes, {self.folders} folders; {'; '.join(text)}"


def of_process(pid, index):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        status = dict(line.split(":", 1) for line in f)
    fds, at_index = collections.Counter(), 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith(index):
            at_index += 1
        else:
            fds[re.sub(r":\[\d+\]$", "", target)] += 1
    kb = [int(status[k].split()[0]) for k in ("RssAnon", "VmRSS")]
    return Process(*kb, int(status["Threads"]), fds, at_index)


def is_idle(status):
    return status["queue.changes"] == status["scans.running"] == "0"


def held(m):
    with m.client() as c:
        until("maildexd to be done", lambda: is_idle(c.status()))
    up = m.fs_status()
    counts = [int(up.get("maildexfs." + k, 0)) for k in ("live.folders", "nodes", "live.evicted")]
    return Held(of_process(m.fs.pid, m.index), of_process(m.process.pid, m.index), *counts)


def forget():
    """The kernel forgets all names that nobody uses: those of the mount, too."""
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("2\n")


def left(now, start):
    """What there is more of than at the start."""
    more = {
        "nodes": now.nodes - start.nodes,
        "folders in memory": now.folders - start.folders,
        "descriptors of maildexfs": now.fs.fds - start.fs.fds,
        "of maildexd": now.daemon.fds - start.daemon.fds,
    }
    return {what: n for what, n in more.items() if n}


def all_gone(m, start):
    """Nothing is left of what was done, to the last node and descriptor; returns what is held then."""
    end = time.monotonic() + WAIT_S
    while True:
        forget()
        time.sleep(1)  # maildexfs hears of it a little later
        now = held(m)
        if not left(now, start):
            return now
        assert time.monotonic() < end, f"is left: {left(now, start)}"


def assert_flat(what, series):
    """Of numbers in KB, one for each of the lives."""
    third = len(series) // 3
    middle, last = (statistics.median(part) for part in (series[third : 2 * third], series[2 * third :]))
    assert last <= middle + SLACK_KB, f"{what} grows: {series} KB"

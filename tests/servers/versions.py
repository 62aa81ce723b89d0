# SPDX-License-Identifier: GPL-2.0-or-later
"""Which version of a server is there, and what is for one version only: a line that begins with "[2.4]"."""

import functools
import os
import re
import subprocess

from daemon import WAIT_S
from talk import TOP

INSIDE = os.path.join(TOP, "tests/support/inside")
ASKED = {
    "courier": (["/usr/bin/imapd", "--version"], r"Courier-IMAP (\d+\.\d+)"),
    "dovecot": (["dovecot", "--version"], r"(\d+\.\d+)"),
}
MARKED = re.compile(r"\[(\d[\d.]*)\] ?")


@functools.cache
def version(server):
    """As "2.4": what has the same number has the same configuration, and is asked the same."""
    command, number = ASKED[server]
    done = subprocess.run(
        [INSIDE, server, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=WAIT_S,
        check=True,
        text=True,
    )
    found = re.search(number, done.stdout)
    assert found, f"{' '.join(command)} said: {done.stdout}"
    return found[1]


def only(server, text):
    """The lines that are for all versions, and those for the one that is there, without the mark."""
    kept = []
    for line in text.splitlines():
        mark = MARKED.match(line)
        if mark and mark[1] != version(server):
            continue
        kept.append(line[mark.end() :] if mark else line)
    return "".join(line + "\n" for line in kept)

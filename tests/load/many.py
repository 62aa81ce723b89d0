# SPDX-License-Identifier: GPL-2.0-or-later
"""Courier for many sessions: its files are put into place once, not for each of them."""

import subprocess

from courier import Courier


class ManyCourier(Courier):
    def __enter__(self):
        # Who is in that namespace keeps it; the others join.
        self.keeper = subprocess.Popen(
            [*self.inside, "sh", "-c", "echo ready && exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.keeper.stdout.readline() == b"ready\n"
        self.inside = ["nsenter", f"--target={self.keeper.pid}", "--mount", "--root"]
        return super().__enter__()

    def __exit__(self, *args):
        try:
            super().__exit__(*args)
        finally:
            self.keeper.stdin.close()
            self.keeper.stdout.close()
            self.keeper.wait()

    def trouble(self):
        """What its processes complained about."""
        return self.logged().splitlines()

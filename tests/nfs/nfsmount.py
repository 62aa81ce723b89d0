# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS mounts of the lab's export, as one of its hosts (network namespaces, see init)."""

import os
import subprocess

EXPORT = "/export"  # the server's own look at the tree
SERVER = "10.9.0.1"


def mount(host, version, path, at, *options):
    """path: below the export. Each with its own caches and counters, also where the same export is mounted twice."""
    os.makedirs(at, exist_ok=True)
    nolock = ["nolock"] if version == "3" else []
    options = ["vers=" + version, "proto=tcp", "hard", "nosharecache", *nolock, *options]
    source = f"{SERVER}:{EXPORT if version == '3' else ''}{path}"
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{host}", "mount", "-t", "nfs", "-o", ",".join(options), source, at], check=True
    )


def unmount(at):
    """Also while a session that nobody waited for is in it."""
    if subprocess.run(["umount", at], check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run(["umount", "-l", at], check=True)

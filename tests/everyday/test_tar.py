# SPDX-License-Identifier: GPL-2.0-or-later
"""tar: backups, full and incremental, and restores."""

import os
import subprocess

from daemon import WAIT_S
from twin import assert_same, facts, message

CREATE = ("tar", "--create", "--sort=name", "--xattrs", "--format=posix")


def test_one_archive_byte_for_byte(twin):
    """Of the mount and of the tree below, with all that a pax header can hold (ctime too) but the time of reading."""
    twin.fill()
    twin.proven()
    argv = (*CREATE, "--pax-option=delete=atime", ".")
    above, below = twin.run_in(twin.mnt, *argv), twin.run_in(twin.low, *argv)
    assert above[0] == 0 and above[1:] == below[1:]
    assert twin.run_in(twin.plain, *argv)[0] == 0


def test_restore(twin):
    twin.fill()
    archive = os.path.join(twin.m.dir, "all.tar")
    assert twin.run_in(twin.plain, *CREATE, "--sparse", f"--file={archive}", ".")[0] == 0
    twin.each(lambda top: subprocess.run(["find", top, "-mindepth", "1", "-delete"], check=True, timeout=WAIT_S))
    twin.run("tar", "-xpf", archive, "--xattrs", "--xattrs-include=*", "--numeric-owner")
    twin.same()
    twin.proven()
    twin.same("all")
    assert twin.run("tar", "--compare", "--xattrs", "-f", archive) == b""
    # Over what is there: files are unlinked and made anew.
    twin.run("tar", "-xpf", archive, "--xattrs", "--xattrs-include=*", "--numeric-owner")
    twin.same()
    assert twin.run("tar", "--compare", "--xattrs", "-f", archive) == b""


def test_compare_tells_what_differs(twin):
    twin.fill()
    archive = os.path.join(twin.m.dir, "all.tar")
    assert twin.run_in(twin.plain, *CREATE, f"--file={archive}", ".")[0] == 0
    cur = sorted(os.listdir(os.path.join(twin.plain, "u", "cur")))
    for top in (twin.plain, twin.mnt):
        os.unlink(os.path.join(top, "u", "cur", cur[1]))
        os.rename(os.path.join(top, "u", "cur", cur[2]), os.path.join(top, "u", "cur", cur[2] + "T"))
        os.chmod(os.path.join(top, "p", "file09"), 0o600)
        with open(os.path.join(top, "p", "file10"), "r+b") as f:
            f.write(b"changed")
        os.utime(os.path.join(top, "p", "file10"), ns=(1, 10**9))
    out = twin.run("tar", "--compare", "-f", archive, code=1)
    assert b"file09: Mode differs" in out and b"file10: Contents differ" in out


def incremental(twin, top, day, *options):
    """One run with -g; returns the names of what was dumped and isn't a directory."""
    snapshot = os.path.join(twin.m.dir, "snapshot." + os.path.basename(top))
    archive = os.path.join(twin.m.dir, f"{day}.{os.path.basename(top)}.tar")
    code, out, err = twin.run_in(top, "tar", "--create", "-g", snapshot, *options, f"--file={archive}", ".")
    assert (code, out) == (0, b""), err
    names = twin.run_in(top, "tar", "--list", f"--file={archive}")[1].decode().splitlines()
    return sorted(n for n in names if not n.endswith("/")), err


def test_incremental(twin):
    """It tells what changed by device, inode, mtime and ctime: they stay, until something changes."""
    twin.fill()
    first = twin.each(lambda top: incremental(twin, top, "1"))
    assert first[0][0] == first[1][0] and len(first[0][0]) > 60
    # Nothing changed. The folders had been listed by the first run only: their mtimes became the server's own with it.
    assert twin.each(lambda top: incremental(twin, top, "2")) == (([], b""), ([], b""))
    twin.proven()
    assert twin.each(lambda top: incremental(twin, top, "3")) == (([], b""), ([], b""))

    def change(top):
        name = sorted(os.listdir(os.path.join(top, "u", "cur")))[0]
        os.rename(os.path.join(top, "u", "cur", name), os.path.join(top, "u", "cur", name.split(":")[0] + ":2,DT"))
        tmp, new = (os.path.join(top, "u", half, "1700000000.M1P1.host") for half in ("tmp", "new"))
        with open(tmp, "xb") as f:
            f.write(message(1))
        os.rename(tmp, new)

    twin.each(change)
    changed = twin.each(lambda top: incremental(twin, top, "4"))
    assert changed[0] == changed[1] and "./u/new/1700000000.M1P1.host" in changed[1][0]
    assert twin.each(lambda top: incremental(twin, top, "5")) == (([], b""), ([], b""))

    restored = os.path.join(twin.m.dir, "restored")
    os.mkdir(restored)
    for day in "12345":
        code, _, err = twin.run_in(restored, "tar", "-xpg", "/dev/null", "-f", f"../{day}.mnt.tar", "--numeric-owner")
        assert code == 0, err
    for path, f in facts(twin.mnt).items():
        copy = facts(restored).get(path)
        assert copy and copy.get("content") == f.get("content") and copy["mode"] == f["mode"], path
    assert facts(restored).keys() == facts(twin.mnt).keys()


def test_incremental_after_a_new_mount(twin):
    """A mount's device number is new each time, as an NFS mount's is: tar knows NFS's by their look, but not FUSE's,
    and must be told."""
    twin.fill()
    incremental(twin, twin.mnt, "1", "--no-check-device")
    twin.m.fs_restart()
    assert incremental(twin, twin.mnt, "2", "--no-check-device") == ([], b"")


def test_a_pipe_between_two_mailboxes(twin):
    """The old way to move a mailbox."""
    twin.fill()
    twin.run("sh", "-c", "mkdir v && tar --format=posix -cf - -C u . | tar -xpf - -C v")
    assert_same(facts(os.path.join(twin.plain, "v")), facts(os.path.join(twin.mnt, "v")))

# SPDX-License-Identifier: GPL-2.0-or-later
"""cp -a, mv, ln, rm, touch, dd: copies into, out of and within the tree."""

import os
import subprocess

from daemon import WAIT_S
from twin import assert_same, facts, fill, message


def copy(*argv):
    subprocess.run(argv, check=True, timeout=WAIT_S)


def test_into_out_of_and_within(twin):
    source, out = (os.path.join(twin.m.dir, n) for n in ("source", "out"))
    os.mkdir(source)
    fill(source, 40, whole_seconds=False)
    for name in ("u", "p"):
        twin.run("cp", "-a", os.path.join(source, name), ".")
    twin.same()
    twin.proven()
    twin.same("all", "u")
    twin.same("all", "p")
    twin.run("cp", "-a", "u", "v")
    twin.run("cp", "-a", "p", "u/cur/odd")  # whatever somebody does in a half
    twin.run("cp", "-al", "u/.Sent", "v/.Links")
    twin.same()
    for top in (twin.mnt, twin.plain):
        os.makedirs(os.path.join(out, os.path.basename(top)))
        for name in ("u", "p", "v"):
            copy("cp", "-a", os.path.join(top, name), os.path.join(out, os.path.basename(top)))
    assert_same(facts(os.path.join(out, "plain")), facts(os.path.join(out, "mnt")))


def test_sparse_files_stay_sparse(twin):
    twin.fill()
    for how in ("auto", "always", "never"):
        twin.run("cp", f"--sparse={how}", "p/sparse", f"p/copy.{how}")
        blocks = twin.each(lambda top, n=how: os.stat(os.path.join(top, "p", f"copy.{n}")).st_blocks)
        assert blocks[0] == blocks[1]
    twin.run("fallocate", "--punch-hole", "--offset", "4096", "--length", "65536", "p/copy.never")
    twin.run("fallocate", "--length", "8M", "--keep-size", "p/copy.auto")
    twin.same("none", "p")


def test_move_update_and_backup(twin):
    twin.fill()
    twin.run("mv", "p/file01", "u/cur/1700000000.M1P1.host:2,")
    twin.run("mv", "u/.Sent", "u/.Archive")
    twin.run("mv", "-n", "p/file02", "p/file03")
    twin.run("mv", "-f", "p/file04", "p/file05")
    twin.run("mv", "-T", "p/deep", "p/empty")
    twin.run("cp", "--backup=numbered", "p/file06", "p/file07")
    twin.run("cp", "-u", "p/file08", "p/file07")
    twin.run("cp", "--remove-destination", "p/file09", "p/file10")
    twin.run("ln", "-f", "p/file11", "p/file12")
    twin.run("ln", "-sfn", "file13", "p/file14")
    twin.run("install", "-m", "0640", "-o", "1234", "p/file15", "p/installed")
    twin.run("truncate", "-s", "100", "p/file16")
    twin.run("touch", "-d", "@1500000000.987654321", "p/file17", "u/cur", "u")
    twin.run("touch", "-h", "-d", "@1500000000.987654321", "p/dangling")
    twin.run("chmod", "-R", "g+rX", "u/.Archive")
    twin.run("chown", "-R", "-h", "1234:5678", "u/.Archive", "p/dangling")
    twin.run("rm", "-r", "u/tmp")
    twin.same("none")
    for path in ("p/file17", "p/dangling"):
        st = os.lstat(os.path.join(twin.mnt, path))
        assert st.st_mtime_ns == 1500000000_987654321


def test_attributes_of_links_and_acls(twin):
    twin.fill()
    twin.run("setfattr", "-h", "-n", "trusted.note", "-v", "x", "p/dangling")
    twin.run("setfattr", "-h", "-n", "trusted.more", "-v", "y", "p/deep/soft", "u/cur")
    twin.run("setfattr", "-h", "-x", "trusted.note", "p/dangling")
    twin.run("setfacl", "-m", "u:1234:rx,d:u:1234:rwx", "u/cur", "p/deep")
    twin.run("setfacl", "-m", "g:5678:r", "p/file01")
    twin.same()
    twin.run("getfattr", "-hdR", "-m", "-", "p/deep", "u/cur")
    twin.run("getfacl", "-nR", "p/deep", "u/cur", "p/file01")
    twin.run("cp", "-a", "p", "q")
    twin.same()


def test_read_and_written_in_every_way(twin):
    """Through the page cache, around it, with gaps, at the end, without permission to read."""
    with open(os.path.join(twin.m.dir, "data"), "xb") as f:
        f.write(b"".join(message(i) for i in range(5000)))
    for flags in ((), ("oflag=direct",), ("oflag=dsync",), ("oflag=append", "conv=notrunc"), ("conv=sparse,fsync",)):
        twin.run("dd", "if=../data", "of=f", "bs=64k", "status=none", *flags)
        twin.same("none")
    twin.run("dd", "if=f", "of=g", "bs=4096", "iflag=direct", "status=none")
    twin.run("dd", "if=f", "of=g", "bs=777", "seek=13", "skip=7", "count=100", "conv=notrunc", "status=none")
    twin.run("sh", "-c", "cat f >> g; : > h; cat f | tee h >/dev/null; cmp f h; sha256sum f g h; rm f; sha256sum g")
    twin.same("none")


def test_refusals_are_the_same(twin):
    twin.fill()
    for argv in (
        ("cp", "p/none", "x"),
        ("mkdir", "u"),
        ("rmdir", "u/cur"),
        ("mv", "u", "u/cur/"),
        ("ln", "p", "q"),
        ("ln", "p/file01", "p/file02"),
        ("rm", "u/cur"),
        ("cat", "p/file01/x"),
        ("sh", "-c", ": > u/cur/" + "x" * 256),
        ("ls", "u/cur/none"),
        ("setfattr", "-h", "-n", "user.x", "-v", "y", "p/dangling"),
    ):
        codes = twin.each(lambda top, a=argv: twin.run_in(top, *a))
        assert codes[0] == codes[1] and codes[0][0] != 0

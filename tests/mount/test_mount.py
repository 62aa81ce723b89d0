# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the overlay is mounted: over its own root, beside it, and what is refused, each with its exit code and the path, nothing changed."""

import os
import subprocess
from errno import EIO

import pytest

from daemon import CUR
from host import FS, eventually, ls, mounts_below, refused, touch

USE, REACH = 2, 3


@pytest.fixture
def over(maildex):
    """mount = root, the recommended set-up."""
    maildex.conf["mount"] = maildex.root
    maildex.fill("u", "cur", 100)
    return maildex


def lower(m):
    return os.path.join(os.path.dirname(m.socket), "lower")


def overlay_is_up(m):
    return any(point == m.root for point in mounts_below(m.dir))


# -- mount = root


def test_servers_keep_their_paths(over):
    plain = ls(over.low("u/cur"))
    over.fs_start()
    assert overlay_is_up(over)
    assert ls(over.up("u/cur")) == plain
    assert ls(os.path.join(lower(over), "u/cur")) == plain
    touch(over.up("u/cur/own:2,"))
    assert b"own:2," in ls(os.path.join(lower(over), "u/cur"))
    touch(os.path.join(lower(over), "u/cur/silent:2,"))
    assert b"silent:2," in ls(over.up("u/cur"))


def test_umount_brings_the_plain_tree_back(over):
    over.fs_start()
    os.rename(over.up("u/cur", "1600000001.M1P1.host:2,S"), over.up("u/cur", "1600000001.M1P1.host:2,ST"))
    through = ls(over.up("u/cur"))
    over.fs_stop()
    assert ls(over.low("u/cur")) == through
    assert not mounts_below(over.dir)
    assert not os.path.exists(lower(over))


def test_umount_l_while_a_session_stands_in_the_mailbox(over):
    over.fs_start()
    with subprocess.Popen(["sleep", "1000"], cwd=over.up("u")) as session:
        try:
            assert subprocess.run(["umount", over.root], check=False, stderr=subprocess.DEVNULL).returncode != 0
            subprocess.run(["umount", "-l", over.root], check=True)
            assert len(ls(over.low("u/cur"))) == 100
            assert not overlay_is_up(over)
        finally:
            session.kill()
    eventually("maildexfs to end", lambda: over.fs.poll() is not None)


def test_crash_and_umount_l(over):
    over.fs_start()
    over.fs_kill()
    code, said = over.fs_refused()
    assert code == REACH and over.root in said and "umount -l" in said
    subprocess.run(["umount", "-l", over.root], check=True)
    assert len(ls(over.low("u/cur"))) == 100
    over.fs_start()  # the private bind that the crash left is no obstacle
    assert len(ls(over.up("u/cur"))) == 100
    touch(over.up("u/cur/x:2,"))
    over.fs_stop()
    assert b"x:2," in ls(over.low("u/cur"))
    assert not mounts_below(over.dir)


@pytest.mark.parametrize("first", ["daemon", "fs"])
def test_maildexd_reads_the_lower_tree(over, first):
    """Never the overlay: whichever starts first, and when the overlay goes and comes."""
    if first == "daemon":
        over.start()
    over.fs_start()
    if first == "fs":
        over.start()

    def indexed():
        ls(over.up("u/cur"))
        row = over.row("u", CUR)
        return row and not row["need"] and row["count"] == len(ls(over.up("u/cur")))

    eventually("the index", lambda: os.path.exists(over.index) and indexed())
    over.fs_restart()
    touch(over.up("u/cur/more:2,"))
    eventually("the index", indexed)
    with over.client() as c:
        assert c.status()["maildexd.state"] == "ok"
        assert c.rebuild()[0] == 0


def test_as_a_daemon_it_returns_when_the_mount_answers(over):
    done = subprocess.run(over.fs_command(), check=True, timeout=60, stderr=subprocess.PIPE)
    try:
        assert overlay_is_up(over), done
        assert len(ls(over.up("u/cur"))) == 100
    finally:
        subprocess.run(["umount", over.root], check=True)
    eventually("it to end", lambda: not os.path.exists(over.socket + ".fs"))


def test_mountpoint_on_the_command_line(maildex):
    maildex.fill("u", "cur", 3)
    conf = maildex.conf.pop("mount")
    cwd = os.getcwd()
    try:
        os.chdir(maildex.dir)
        command = [os.path.join(cwd, FS) if not os.path.isabs(FS) else FS, *maildex.fs_command("-f", "mnt")[1:]]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as p:
            eventually("the mount", lambda: os.path.ismount(conf))
            assert len(ls(os.path.join(conf, "u/cur"))) == 3
            subprocess.run(["umount", conf], check=True)
            assert p.wait(60) == 0
    finally:
        os.chdir(cwd)
        maildex.conf["mount"] = conf


# -- refusals


def unchanged(m, code, *words, args=(), **options):
    """Refused with that code and these words, and everything is as before."""
    m.fs_command()  # writes the configuration
    before = (mounts_below(m.dir), sorted(os.listdir(m.dir)))
    got, said = m.fs_refused(*args, **options)
    assert got == code, said
    for word in words:
        assert word in said, said
    assert len(said.strip().splitlines()) == 1, said
    assert (mounts_below(m.dir), sorted(os.listdir(m.dir))) == before


def test_root_is_not_there(maildex):
    unchanged(maildex, REACH, maildex.dir + "/gone", root=maildex.dir + "/gone")


def test_root_is_a_file(maildex):
    path = touch(maildex.dir + "/file")
    unchanged(maildex, USE, path, root=path)


def test_mount_point_is_not_there(maildex):
    unchanged(maildex, REACH, maildex.dir + "/nowhere", "make this directory", mount=maildex.dir + "/nowhere")


def test_mount_point_is_a_file(maildex):
    path = touch(maildex.dir + "/file")
    unchanged(maildex, USE, path, mount=path)


def test_mount_point_is_not_empty(maildex):
    touch(maildex.mnt + "/x")
    unchanged(maildex, USE, maildex.mnt, "not empty")
    os.unlink(maildex.mnt + "/x")


@pytest.mark.parametrize("mode, owner", [(0o777, 0), (0o775, 0), (0o755, 65534)])
def test_mail_users_could_write_to_the_mount_point(maildex, mode, owner):
    """After umount it would be an empty mail store, and take mail that is lost later."""
    os.chmod(maildex.mnt, mode)
    os.chown(maildex.mnt, owner, owner)
    unchanged(maildex, USE, maildex.mnt, "chown root")
    os.chown(maildex.mnt, 0, 0)


def test_mount_point_below_root(maildex):
    os.mkdir(maildex.low("in"), 0o755)
    unchanged(maildex, USE, maildex.low("in"), "below root", mount=maildex.low("in"))


def test_root_below_the_mount_point(maildex):
    unchanged(maildex, USE, maildex.dir, "hide root", mount=maildex.dir)


def test_mounted_already(mounted):
    got, said = mounted.fs_refused(socket=mounted.socket + "2")
    assert got == USE and mounted.mnt in said
    mounted.same("u/cur")


def test_root_is_an_overlay(mounted):
    other = mounted.dir + "/other"
    os.mkdir(other, 0o755)
    got, said = mounted.fs_refused(root=mounted.mnt, mount=other, socket=mounted.socket + "2")
    assert got == REACH and "maildex mount" in said


def test_index_of_another_tree(maildex):
    maildex.start()
    maildex.stop()
    os.mkdir(maildex.dir + "/another", 0o755)
    unchanged(maildex, REACH, maildex.index, root=maildex.dir + "/another")


@pytest.mark.parametrize(
    "option, words",
    [({"rooot": "/x"}, ["rooot"]), ({"serve": "nothing"}, ["serve", "nothing"]), ({"revalidate": "soon"}, ["revalidate"])],
)
def test_bad_options(maildex, option, words):
    unchanged(maildex, USE, *words, **option)


def test_bad_file_names_file_line_and_key(maildex):
    path = maildex.fs_command()[2]
    with open(path, "a", encoding="utf-8") as f:
        f.write("\nscanz = 3\n")
    with open(path, encoding="utf-8") as f:
        line = len(f.read().splitlines())
    done = subprocess.run([FS, "-c", path, "-f"], stderr=subprocess.PIPE, check=False, timeout=60)
    said = done.stderr.decode()
    assert done.returncode == USE and path in said and str(line) in said and "scanz" in said


def test_no_mount_point_at_all(maildex):
    del maildex.conf["mount"]
    try:
        unchanged(maildex, USE, "mount point")
    finally:
        maildex.conf["mount"] = maildex.mnt


# -- the tree goes away


def test_another_tree_under_root_is_an_error_never_an_empty_maildir(maildex):
    """Law 7, with tmpfs mounts in the place of NFS ones."""
    subprocess.run(["mount", "-t", "tmpfs", "maildex-test", maildex.root], check=True)
    maildex.maildir("u", cur=10)
    maildex.fs_start()
    assert len(maildex.same("u/cur")) == 10
    subprocess.run(["umount", "-l", maildex.root], check=True)
    eventually("an error", lambda: _listing_fails(maildex))
    refused(EIO, os.listdir, maildex.up("u/cur"))
    refused(EIO, os.listdir, maildex.up("u"))
    assert maildex.fs_status()["maildexfs.state"] != "ok"
    assert maildex.root in maildex.fs_logged()


def _listing_fails(m):
    try:
        names = os.listdir(m.up("u/cur"))
    except OSError:
        return True
    assert len(names) == 10  # until it is noticed, the held tree is listed
    return False

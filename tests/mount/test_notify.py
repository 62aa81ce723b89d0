# SPDX-License-Identifier: GPL-2.0-or-later
"""maildex-notify: what a delivery agent says reaches the index; whatever is wrong, a delivery is not harmed."""

import os
import socket
import subprocess
import threading

import pytest

from daemon import BUILD, CUR, ERROR, NEW, OK, WAIT_S, Daemon, message, put_str, until
from scratch import tmp_path  # pylint: disable=unused-import

NOTIFY = os.path.abspath(os.path.join(BUILD, "maildex-notify"))


def notify(conf, *args, stdin=b"", cwd=None):
    """Returns (exit code, what it said)."""
    done = subprocess.run(
        [NOTIFY, "-c", conf, *args], input=stdin, capture_output=True, timeout=WAIT_S, cwd=cwd, check=False
    )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


@pytest.fixture
def daemon():
    with Daemon() as d:
        d.conf["mount"] = os.path.join(d.dir, "mnt")
        d.maildir("u/Maildir", cur=2)
        d.maildir("v/Maildir")
        d.start()
        with d.client() as c:
            assert c.rebuild()[0] == 0
        tick(d)
        yield d


def tick(d):
    """Stamps move with the kernel's tick: what happens from now on has another one than the folders have."""
    newest = max(os.stat(d.path(f, h)).st_ctime_ns for f in ("u/Maildir", "v/Maildir") for h in ("new", "cur"))
    probe = os.path.join(d.dir, "probe")

    def moved():
        with open(probe, "w", encoding="ascii"):
            return os.stat(probe).st_ctime_ns > newest

    until("a tick of the clock", moved)


def conf_of(d):
    d.command()
    return os.path.join(d.dir, "maildex.conf")


def indexed(d, folder, half):
    with d.client() as c:
        d.idle(c)
    return d.names(folder, half)


def test_message_by_every_kind_of_path(daemon):
    d, conf = daemon, conf_of(daemon)
    for n, path in enumerate(("{root}/u/Maildir/new/{name}", "{mount}//u/./Maildir/new/{name}", "Maildir/new/{name}")):
        name = f"180000000{n}.M1P1.host"
        ino = d.deliver("u/Maildir", name)
        path = path.format(root=d.root, mount=d.conf["mount"], name=name)
        assert notify(conf, "--strict", path, cwd=d.path("u")) == (0, "")
        assert indexed(d, "u/Maildir", NEW)[name] == ino, path


@pytest.mark.parametrize("path", ["{root}/u/Maildir/new/", "{mount}/u/Maildir", "./Maildir", "Maildir/new"])
def test_something_arrived(daemon, path):
    """No name is told, so the folder is marked: it is listed before it is served again."""
    d, conf = daemon, conf_of(daemon)
    d.deliver("u/Maildir", "1800000000.M1P1.host")
    assert not d.row("u/Maildir", NEW)["need"]
    assert notify(conf, "--strict", path.format(root=d.root, mount=d.conf["mount"]), cwd=d.path("u")) == (0, "")
    indexed(d, "u/Maildir", NEW)
    assert d.row("u/Maildir", NEW)["need"]
    assert not d.row("u/Maildir", CUR)["need"]


def test_many_paths_on_standard_input(daemon):
    d, conf = daemon, conf_of(daemon)
    names = [f"18{n:08}.M1P1.host" for n in range(3000)]
    for n in names:
        d.deliver("u/Maildir", n)
    lines = "".join(d.path("u/Maildir/new", n) + "\n" for n in names)
    assert notify(conf, "--strict", "-", stdin=lines.encode()) == (0, "")
    assert set(names) <= set(indexed(d, "u/Maildir", NEW))


@pytest.mark.parametrize("option", ["-0", "--null"])
def test_paths_with_newlines(daemon, option):
    d, conf = daemon, conf_of(daemon)
    name = "1800000000.odd\nname\udcff:2,S"
    ino = d.deliver("u/Maildir", name, half="cur")
    d.deliver("v/Maildir", "1800000001.x.host")
    paths = [d.path("u/Maildir/cur", name), d.path("v/Maildir")]
    stdin = b"".join(os.fsencode(p) + b"\0" for p in paths)
    assert notify(conf, "--strict", option, "-", stdin=stdin) == (0, "")
    assert indexed(d, "u/Maildir", CUR)[name] == ino
    assert d.row("v/Maildir", NEW)["need"]


def test_nothing_on_standard_input(daemon):
    assert notify(conf_of(daemon), "--strict", "-") == (0, "")


def test_paths_that_are_not_ours(daemon):
    d, conf = daemon, conf_of(daemon)
    d.deliver("u/Maildir", "1800000000.good.host")
    for path in ("/etc/new/1.2.3", d.root + "/../x/new/1", d.path("u/Maildir/new/") + "x" * 256, ""):
        code, said = notify(conf, path)
        assert code == 0 and os.path.basename(path) in said
        # the others are told all the same
        code, said = notify(conf, "--strict", path, d.path("u/Maildir/new/1800000000.good.host"))
        assert code == 2 and os.path.basename(path) in said
    assert "1800000000.good.host" in indexed(d, "u/Maildir", NEW)


def test_maildexd_away(tmp_path):
    conf = tmp_path / "maildex.conf"
    conf.write_text(f"[maildex]\nroot = {tmp_path}\nsocket = {tmp_path}/sock\n")
    path = str(tmp_path / "u/new/1.2.3")
    assert notify(str(conf), path) == (0, "")
    assert notify(str(conf), "--soft", path) == (0, "")
    code, said = notify(str(conf), "-o", "log=debug", path)
    assert code == 0 and f"{tmp_path}/sock" in said
    code, said = notify(str(conf), "--strict", path)
    assert code == 3 and f"{tmp_path}/sock" in said


def test_configuration_trouble(tmp_path):
    conf = tmp_path / "maildex.conf"
    for text in (None, "[maildex]\nroot = /x\nnonsense = 1\n", "[maildex]\nroot = relative\n", "[maildex]\n"):
        if text is not None:
            conf.write_text(text)
        code, said = notify(str(conf), "/x/new/1.2.3")
        assert code == 0 and said != ""
        code, said = notify(str(conf), "--strict", "/x/new/1.2.3")
        assert code == 2 and said != ""


def test_wrong_use(tmp_path):
    conf = tmp_path / "maildex.conf"
    conf.write_text("[maildex]\nroot = /x\n")
    for args in ([], ["--nonsense", "/x/new/1"], ["--soft", "--strict", "/x/new/1"], ["-x", "/x/new/1"]):
        code, said = notify(str(conf), *args)
        assert code == 2 and "--help" in said


@pytest.fixture
def listener(tmp_path):
    """A socket where maildexd would be, and a configuration that leads to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.bind(str(tmp_path / "sock"))
        s.listen(0)
        (tmp_path / "maildex.conf").write_text(f"[maildex]\nroot = {tmp_path}\nsocket = {tmp_path}/sock\n")
        yield s


def test_maildexd_that_never_answers(listener, tmp_path):
    conf, path = str(tmp_path / "maildex.conf"), str(tmp_path / "u/new/1.2.3")
    stdin = f"{path}\n".encode() * 5000  # more than a socket holds
    for args, given in (([path], b""), (["-"], stdin)):
        assert notify(conf, *args, stdin=given) == (0, "")
        code, said = notify(conf, "--strict", *args, stdin=given)
        assert code == 3 and str(tmp_path / "sock") in said


def test_no_room_for_another_connection(listener, tmp_path):
    conf, path = str(tmp_path / "maildex.conf"), str(tmp_path / "u/new/1.2.3")
    waiting = []
    with pytest.raises(BlockingIOError):
        while True:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            waiting.append(s)
            s.setblocking(False)
            s.connect(str(tmp_path / "sock"))
    assert notify(conf, path) == (0, "")
    code, said = notify(conf, "--strict", path)
    assert code == 3 and "does not answer" in said
    for s in waiting:
        s.close()


def answer_with(listener, answers):
    """Answers each message after HELLO with the next of these, then hangs up."""

    def serve():
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            for a in answers:
                peer.recv(65536)
                peer.send(a)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("strict, code", [(False, 0), (True, 1)])
def test_refused_by_maildexd(listener, tmp_path, strict, code):
    conf, path = str(tmp_path / "maildex.conf"), str(tmp_path / "u/new/1.2.3")
    thread = answer_with(listener, [message(OK), message(ERROR, put_str("no such\nfolder")), message(OK)])
    got, said = notify(conf, *(["--strict"] if strict else []), path, path, path)
    thread.join()
    assert got == code and "no such\\x0afolder" in said


def test_maildexd_hangs_up(listener, tmp_path):
    conf, path = str(tmp_path / "maildex.conf"), str(tmp_path / "u/new/1.2.3")
    for args, code in (([], 0), (["--strict"], 3)):
        thread = answer_with(listener, [message(OK)])
        got, said = notify(conf, *args, path, path)
        thread.join()
        assert got == code and ("ended" in said or "reset" in said or "Broken pipe" in said) == bool(code)

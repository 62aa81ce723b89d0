# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shipped around the programs: the hook for maildrop, mount.maildex, install and uninstall."""

import os
import subprocess

import pytest

from daemon import BUILD, CUR, NEW, WAIT_S, Daemon, until
from scratch import tmp_path  # pylint: disable=unused-import

HOOK = os.path.abspath("tools/hooks/maildrop")
MAIL = b"From: a@example.org\nSubject: x\n\nhello\n"


def run(*argv, stdin=b"", env=None, cwd=None):
    """Returns (exit code, all that was said)."""
    done = subprocess.run(
        argv,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode, done.stdout.decode()


# -- maildrop


@pytest.fixture
def daemon():
    with Daemon() as d:
        d.maildir("u/Mail dir")
        yield d


def maildrop(d, *lines):
    """Delivers one message by a filter that ends with our hook."""
    d.command()
    notify = os.path.join(d.dir, "notify here")
    with open(notify, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nexec "{os.path.abspath(BUILD)}/maildex-notify" -c "{d.dir}/maildex.conf" "$@"\n')
    os.chmod(notify, 0o755)
    mailfilter = os.path.join(d.dir, "mailfilter")
    with open(mailfilter, "w", encoding="ascii") as f:
        f.write("\n".join([f'MAILDEX_NOTIFY="{notify}"', *lines, f'include "{HOOK}"', ""]))
    os.chmod(mailfilter, 0o600)
    return run("maildrop", mailfilter, stdin=MAIL, env={"HOME": d.path("u")}, cwd=d.path("u"))


def known(d, half, sub="u/Mail dir"):
    """Was maildexd told? The folder is marked to be listed before it is served."""
    with d.client() as c:
        d.idle(c)
    return d.row(sub, half)["need"] == 1


@pytest.mark.parametrize(
    "line, half",
    [
        ('DEFAULT="{root}/u/Mail dir"', NEW),
        ('DEFAULT="./Mail dir"', NEW),
        ('MAILDEX_TO="{root}/u/Mail dir"', NEW),
        ('FLAGS="S"\nDEFAULT="{root}/u/Mail dir"', CUR),
    ],
)
def test_maildrop_tells_maildexd(daemon, line, half):
    d = daemon.start()
    with d.client() as c:
        assert c.rebuild()[0] == 0
    assert not known(d, half)
    assert maildrop(d, line.format(root=d.root)) == (0, "")
    (name,) = d.disk("u/Mail dir", half)
    with open(d.path("u/Mail dir", ("new", "cur")[half], name), "rb") as f:
        assert f.read().endswith(b"\nhello\n")
    assert known(d, half)


@pytest.mark.parametrize(
    "trouble",
    [
        'MAILDEX_NOTIFY="/nonexistent/maildex-notify"',
        'MAILDEX_NOTIFY="/bin/false"',
        "",  # only that maildexd is away
    ],
)
def test_maildrop_delivers_whatever_becomes_of_the_notice(daemon, trouble):
    code, _ = maildrop(daemon, f'DEFAULT="{daemon.root}/u/Mail dir"', trouble)
    assert code == 0 and len(daemon.disk("u/Mail dir", NEW)) == 1


def test_maildrop_keeps_mail_queued_that_it_cannot_deliver(daemon):
    code, _ = maildrop(daemon, f'DEFAULT="{daemon.root}/nobody/Maildir"')
    assert code == 75


# -- mount.maildex


HELPER = os.path.abspath("tools/mount.maildex")


def test_mount_helper(daemon):
    d = daemon
    d.command()
    point = os.path.join(d.dir, "mnt")
    os.mkdir(point, 0o755)
    conf = os.path.join(d.dir, "maildex.conf")
    options = f"rw,_netdev,noatime,x-systemd.automount,serve=lower,socket={d.dir}/sock"
    with open(d.log, "ab") as log:
        done = subprocess.run(
            [HELPER, conf, point, "-n", "-o", options],
            env={**os.environ, "MAILDEXFS": os.path.abspath(os.path.join(BUILD, "maildexfs"))},
            stderr=log,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 0
    try:
        assert os.listdir(point) == ["u"]
        _, out = run(os.path.join(BUILD, "maildexctl"), "-c", conf, "-o", f"socket={d.dir}/sock", "serve")
        assert out == "* lower\n"
    finally:
        assert run("umount", point)[0] == 0
    until("maildexfs to end", lambda: not os.path.exists(f"{d.dir}/sock.fs"))


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["/conf"],
        ["/conf", "/mnt", "surplus"],
        ["/conf", "/mnt", "-o", "ro"],
        ["/conf", "/mnt", "-o", "rw,noexec"],
        ["/conf", "/mnt", "-o", "nonsense"],
        ["/conf", "/mnt", "-N", "1"],
    ],
)
def test_mount_helper_refuses(args):
    code, said = run(HELPER, *args, env={"MAILDEXFS": "/bin/true"})
    assert code == 1 and said != ""


def test_mount_helper_hands_on(tmp_path):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    show.chmod(0o755)
    args = ["/c o.conf", "/m p", "-s", "-o", "defaults,root=/a b,*=*", "-o", "nofail,log=debug"]
    code, said = run(HELPER, *args, env={"MAILDEXFS": str(show)})
    assert code == 0 and said == "[-c][/c o.conf][-o][root=/a b][-o][*=*][-o][log=debug][--][/m p]"
    assert run(HELPER, "/c", "/m", "-f", env={"MAILDEXFS": str(show)}) == (0, "")


# -- install


INSTALLED = {
    "opt/mx/sbin/maildexd",
    "opt/mx/sbin/maildexfs",
    "opt/mx/bin/maildexctl",
    "opt/mx/bin/maildex-notify",
    *(f"opt/mx/share/maildex/hooks/{hook}" for hook in os.listdir("tools/hooks")),
    "opt/mx/share/maildex/maildex.conf",
    "sbin/mount.maildex",
    "etc/maildex/maildex.conf",
}


def files(top):
    return {os.path.relpath(os.path.join(d, n), top) for d, _, names in os.walk(top) for n in names}


def do(what, dest):
    assert run(f"tools/dev/{what}", str(dest), "/opt/mx", "/etc", BUILD) == (0, "")


def test_install_and_uninstall(tmp_path):
    keep = tmp_path / "opt/mx/bin/other"
    keep.parent.mkdir(parents=True)
    keep.write_text("not ours")
    do("install", tmp_path)
    assert files(tmp_path) == INSTALLED | {"opt/mx/bin/other"}
    assert run(str(tmp_path / "opt/mx/bin/maildexctl"), "--version")[0] == 0
    for script in ("sbin/mount.maildex", *(f for f in INSTALLED if "/hooks/" in f)):
        text = (tmp_path / script).read_text()
        assert "/opt/mx/" in text and "/usr/local" not in text
    do("install", tmp_path)  # again, over itself
    do("uninstall", tmp_path)
    assert files(tmp_path) == {"opt/mx/bin/other"}
    assert not (tmp_path / "etc/maildex").exists() and not (tmp_path / "opt/mx/share/maildex").exists()


def test_a_configuration_in_use_stays(tmp_path):
    conf = tmp_path / "etc/maildex/maildex.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("[maildex]\nroot = /srv/mail\n")
    do("install", tmp_path)
    do("uninstall", tmp_path)
    assert files(tmp_path) == {"etc/maildex/maildex.conf"}
    assert conf.read_text() == "[maildex]\nroot = /srv/mail\n"


def test_example_configuration(tmp_path):
    """Every key that it shows is known, and its value is taken."""
    with open("tools/maildex.conf", encoding="ascii") as f:
        lines = f.read().splitlines()
    shown = [l for l in lines if l.startswith("#") and not l.startswith("# ") and " =" in l]
    assert len(shown) > 15
    conf = tmp_path / "maildex.conf"
    conf.write_text("[maildex]\n" + "".join(l.removeprefix("#") + "\n" for l in shown) + f"root={tmp_path}\n")
    code, said = run(os.path.join(BUILD, "maildex-notify"), "-c", str(conf), "--strict", "-")
    assert (code, said) == (0, "")

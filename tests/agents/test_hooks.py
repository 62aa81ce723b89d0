# SPDX-License-Identifier: GPL-2.0-or-later
"""What hooks do besides a plain delivery: several folders, other kinds of folders, deliveries that fail."""

import os
import subprocess

import pytest

from agents import Procmail
from daemon import BUILD, WAIT_S
from mta import Exim
from place import HOOKS, MESSAGES, SENDER, Place, as_account, messages, run


@pytest.fixture
def place():
    with Place() as p:
        yield p


def recorder(p):
    """In place of maildex-notify: keeps what it was told."""
    path = os.path.join(p.dir, "told")
    with open(path, "w", encoding="ascii"):
        pass
    os.chmod(path, 0o666)
    with open(p.notify, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{path}\n')
    return path


def told(path):
    with open(path, encoding="utf-8") as f:
        return f.read().splitlines()


def procmail(p, *recipes):
    """Returns (exit code, procmail's log, what maildex-notify was told)."""
    path = recorder(p)
    with Procmail(p, p.root, hook=True) as a:
        home = a.homes["anna"]
        with open(a.rc, "a", encoding="ascii") as f:
            f.write("\n".join(recipes) + "\n")
        done = subprocess.run(
            [*a.argv, *as_account(home), "procmail", "-t", "-f", SENDER, a.rc],
            input=MESSAGES["small"],
            timeout=WAIT_S,
            check=False,
        )
        with open(os.path.join(home.home, "procmail.log"), encoding="utf-8") as f:
            return done.returncode, f.read(), told(path)


def test_procmail_names_the_message(place):
    code, _, said = procmail(place)
    assert code == 0 and said == ["--", *messages(place.path("anna/Maildir"))]


def test_procmail_with_spaces_in_a_path(place):
    code, _, said = procmail(place, ":0", '"$HOME/Mail dir/"')
    assert code == 0 and said == ["--", *messages(place.path("anna/Mail dir"))]


def test_procmail_with_two_folders_in_a_recipe(place):
    code, _, said = procmail(place, ":0", "$HOME/Maildir/ $HOME/Other/")
    both = {*messages(place.path("anna/Maildir")), *messages(place.path("anna/Other"))}
    assert code == 0 and len(both) == 2 and said[0] == "--" and set(said[1:]) == both


@pytest.mark.parametrize("recipe", ["$HOME/mbox", "| cat >/dev/null", "/dev/null"])
def test_procmail_elsewhere(place, recipe):
    """No Maildir: nothing is told, and nothing is said."""
    code, log, said = procmail(place, ":0", recipe)
    assert (code, said) == (0, []) and "sh:" not in log


def test_procmail_that_does_not_deliver(place):
    """What it returns is not the hook's; the mail server keeps the message."""
    code, _, said = procmail(place, "EXITCODE=75", "HOST=ends here")
    assert (code, said) == (75, [])


def deliver(p, *argv):
    path = recorder(p)
    done = subprocess.run(
        [os.path.join(HOOKS, "deliver"), *argv],
        input=b"mail",
        capture_output=True,
        env={"PATH": os.environ["PATH"], "MAILDEX_NOTIFY": p.notify},
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode, done.stdout, told(path)


def test_deliver(place):
    """The agent's input, output, arguments and exit code are as they would be; only a good delivery is told."""
    assert deliver(place, "/m/a b", "sh", "-c", 'cat; echo "$1"', "x", "a  b") == (0, b"maila  b\n", ["--", "/m/a b"])
    assert deliver(place, "/m", "sh", "-c", "exit 75") == (75, b"", [])
    assert deliver(place, "/m", "sh", "-c", "kill -9 $$")[0] == 128 + 9
    assert deliver(place, "/m", "/nonexistent/agent")[0] == 127
    assert deliver(place, "/m")[0] == 64


def test_exim_with_maildirs_elsewhere(place):
    path = recorder(place)
    with Exim(place, place.root, hook=True) as a:
        conf = os.path.join(a.dir, "exim4.conf")
        with open(conf, encoding="ascii") as f:
            text = f.read()
        maildir = f"{place.root}/$local_part_data/Maildir"
        text = f"MAILDEX_TO = {maildir}\n{text.replace('$home/Maildir', maildir)}"
        with open(conf, "w", encoding="ascii") as f:
            f.write(text)
        a.deliver(MESSAGES["small"], "anna", "bert")
    assert sorted(told(path)) == ["--", "--", place.path("anna/Maildir"), place.path("bert/Maildir")]


def test_exim_as_installed(place):
    """The hook names maildex-notify where it was installed, and $home/Maildir."""
    run([os.path.abspath("tools/dev/install"), f"{place.dir}/installed", "/opt/mx", "/etc", BUILD])
    with Exim(place, place.root, hook=True) as a:
        conf = os.path.join(a.dir, "exim4.conf")
        with open(conf, encoding="ascii") as f:
            text = f.read().replace(HOOKS, f"{place.dir}/installed/opt/mx/share/maildex/hooks")
        with open(conf, "w", encoding="ascii") as f:
            f.write(text.replace(f"MAILDEX_NOTIFY = {place.notify}", ""))
        said = run([*a.argv, "exim4", "-bP", "transport", "maildex_notify"])
        assert "command = /opt/mx/bin/maildex-notify -- \"$home/Maildir\"\n" in said
        # It is not there: the delivery is good all the same.
        a.deliver(MESSAGES["small"], "anna")
        assert "ST=maildex_notify" in a.logged()
    assert len(messages(place.path("anna/Maildir"))) == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""mutt on a Maildir, driven by its keys in a pseudo-terminal."""

import os
import pty
import select
import signal
import termios
import time

import pytest

from daemon import WAIT_S
from mail import assert_mail, left
from twin import ENV

RC = """
set mbox_type=Maildir folder=. spoolfile=+u record= postponed=+u/.Drafts mbox=+u/.Read confirmappend=no confirmcreate=no
set delete=yes move=no quit=yes wait_key=no check_new=yes sort=date sleep_time=0 header_cache= maildir_trash=no
set sendmail=/bin/true use_domain=no hostname=example.org sort_aux=date maildir_check_cur=yes timeout=1 mail_check=0
unset confirmappend
"""


def mutt(top, home, keys, folder="u"):
    """Runs mutt until it ends by itself; returns (exit code, what was on its screen)."""
    rc = os.path.join(home, "muttrc")
    with open(rc, "w", encoding="ascii") as f:
        f.write(RC)
    pid, tty = pty.fork()
    if pid == 0:
        os.chdir(top)
        termios.tcsetwinsize(0, (24, 80))  # newer ones refuse a terminal without a size
        os.execvpe("mutt", ["mutt", "-n", "-F", rc, "-f", folder, "-e", f'push "{keys}"'], {**ENV, "HOME": home})
    screen, end = b"", time.monotonic() + WAIT_S
    try:
        while True:
            ready, _, _ = select.select([tty], [], [], max(0, end - time.monotonic()))
            assert ready, f"mutt waits: {screen[-2000:]}"
            piece = os.read(tty, 65536)
            if not piece:
                break
            screen += piece
    except OSError:  # how the end of a terminal reads
        pass
    finally:
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
        os.close(tty)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), screen


def both(twin, keys, folder="u"):
    for top in (twin.plain, twin.mnt):
        code, screen = mutt(top, twin.m.dir, keys, folder)
        assert code == 0, screen[-2000:]


@pytest.mark.parametrize(
    "keys",
    [
        "<quit>",  # new messages become old: they move to cur/
        "<display-message><exit><next-entry><display-message><exit><quit>",
        "<flag-message><last-entry><flag-message><toggle-new><sync-mailbox><quit>",
        "<delete-message><last-entry><delete-message><sync-mailbox><quit>",
        "<tag-pattern>~N<enter><tag-prefix><clear-flag>N<sync-mailbox><quit>",
        "<delete-pattern>~A<enter><quit>",
        "<tag-pattern>~F<enter><tag-prefix><save-message>=u/.Sent<enter><quit>",
        "<copy-message>=u/.Sent<enter><save-message>=u/.Other<enter><sync-mailbox><quit>",
        "<sync-mailbox><change-folder>=u/.Sent<enter><flag-message><quit>",
    ],
)
def test_keys(twin, keys):
    twin.fill()
    both(twin, keys)
    assert_mail(twin, "u", "u/.Sent")
    if os.path.exists(os.path.join(twin.plain, "u", ".Other")):
        assert_mail(twin, "u/.Other")
    twin.true()
    # And what was done is what was meant: the second run finds it so.
    both(twin, "<quit>")
    assert_mail(twin, "u", "u/.Sent")


def test_it_changed_something(twin):
    twin.fill()
    before = left(os.path.join(twin.mnt, "u"))
    both(twin, "<delete-pattern>~F<enter><sync-mailbox><flag-message><quit>")
    after = left(os.path.join(twin.mnt, "u"))
    assert len(after) < len(before) and [f for _, f, _ in after if "F" in f] == ["F"]
    assert not [m for m in after if m[0] == "new"]


ARRIVES = b"From: b@example.org\nSubject: arrives\nDate: Mon, 14 Sep 2020 12:00:00 +0000\n\nx\n"


def test_mail_that_arrives_while_it_is_open(twin):
    """mutt sees it by the time of new/: at once where it went through the mount. From below, stats may share a reading
    for `revalidate`; here it is waited for."""
    twin.fill(4)
    script = os.path.join(twin.m.dir, "arrive")
    for top, to in ((twin.plain, twin.plain), (twin.mnt, twin.mnt), (twin.mnt, twin.low)):
        with open(os.path.join(to, "u", "tmp", "1700000000.M1P1.host"), "xb") as f:
            f.write(ARRIVES)
        with open(script, "w", encoding="ascii") as f:
            f.write(f"mv {to}/u/tmp/1700000000.M1P1.host {to}/u/new/\n")
            if to == twin.low:
                f.write(f"until ls {top}/u/new >/dev/null && ! test {top}/u/new -ot {to}/u/new; do :; done\n")
        keys = f"<shell-escape>sh {script}<enter><refresh><sync-mailbox><last-entry><display-message><exit><quit>"
        code, screen = mutt(top, twin.m.dir, keys)
        assert code == 0 and b"arrives" in screen, (top, to, screen)
        (name,) = [n for n in os.listdir(os.path.join(top, "u", "cur")) if n.startswith("1700000000")]
        assert name.endswith(":2,S")
        os.unlink(os.path.join(top, "u", "cur", name))
    assert_mail(twin, "u")

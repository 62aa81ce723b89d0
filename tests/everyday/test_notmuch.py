# SPDX-License-Identifier: GPL-2.0-or-later
"""notmuch: an index of all mail in a database beside it; it tells by a folder's mtime (whole seconds) whether to list
it, and writes flags into the names."""

import os

import pytest

from mail import assert_mail
from twin import message


@pytest.fixture(params=[".notmuch", "../database"])
def notmuch(twin, request):
    """Runs it in both trees; its database inside of the tree, and elsewhere."""

    def run(*argv, **kw):
        for top in (twin.plain, twin.mnt):
            where = os.path.normpath(os.path.join(top, request.param + "." + os.path.basename(top)))
            with open(os.path.join(twin.m.dir, "config." + os.path.basename(top)), "w", encoding="utf-8") as f:
                f.write(
                    f"[database]\npath={where}\nmail_root={top}\n[user]\nname=u\nprimary_email=u@example.org\n"
                    "[new]\ntags=unread;inbox\nignore=dovecot-uidlist;p;/.*[.]notmuch.*/\n"
                    "[maildir]\nsynchronize_flags=true\n"
                )
        script = 'NOTMUCH_CONFIG="$HOME/config.${PWD##*/}"; export NOTMUCH_CONFIG; exec notmuch "$@"'
        return twin.run("sh", "-c", script, "notmuch", *argv, **kw)

    for top in (twin.plain, twin.mnt):
        os.makedirs(os.path.normpath(os.path.join(top, request.param + "." + os.path.basename(top))))
    return run


def deliver(twin, name, i, half="new"):
    for top in (twin.plain, twin.mnt):
        with open(os.path.join(top, "u", half, name), "xb") as f:
            f.write(message(i))


def test_new_search_tag(twin, notmuch):
    twin.fill()
    notmuch("new", "--quiet")
    assert notmuch("count", "*") == b"40\n"
    ids = "--output=messages"
    assert notmuch("search", ids, "--sort=oldest-first", "tag:unread").count(b"\n") > 10
    notmuch("search", ids, "--sort=oldest-first", "tag:flagged")
    notmuch("tag", "-unread", "+flagged", "--", "id:m3@example.org or id:m4@example.org or id:m5@example.org")
    notmuch("tag", "+replied", "--", "subject:\"matter 7\"")
    assert_mail(twin, "u", "u/.Sent")
    twin.same("none", "u")
    assert any(n.endswith(":2,FS") and ".M3P1." in n for n in os.listdir(os.path.join(twin.mnt, "u", "cur")))
    notmuch("new", "--quiet")
    assert notmuch("count", "*") == b"40\n"
    notmuch("dump", sort=True)
    notmuch("show", "--format=raw", "id:m4@example.org")


def test_changes_are_found_by_the_folders_time(twin, notmuch):
    """Each change is made and looked for at once, in the second of the last run or another."""
    twin.fill(6)
    notmuch("new", "--quiet")
    for i in range(100, 105):
        deliver(twin, f"17{i:08}.M{i}P1.host", i)
        notmuch("new", "--quiet")
        assert notmuch("count", f"id:m{i}@example.org") == b"1\n"
        for top in (twin.plain, twin.mnt):
            new = os.path.join(top, "u", "new", f"17{i:08}.M{i}P1.host")
            os.rename(new, os.path.join(top, "u", "cur", f"17{i:08}.M{i}P1.host:2,{'FS' if i % 2 else 'S'}"))
        notmuch("new", "--quiet")
        assert notmuch("count", f"id:m{i}@example.org and tag:unread") == b"0\n"
        assert notmuch("count", f"id:m{i}@example.org and tag:flagged") == (b"1\n" if i % 2 else b"0\n")
    for top in (twin.plain, twin.mnt):
        for name in os.listdir(os.path.join(top, "u", "cur")):
            if name.startswith("17"):
                os.unlink(os.path.join(top, "u", "cur", name))
    notmuch("new", "--quiet")
    assert notmuch("count", "*") == b"6\n"
    assert_mail(twin, "u")


def test_changes_from_elsewhere(twin, notmuch):
    """Made below the mount, as another host would; seen by the next run after `revalidate`."""
    twin.fill(6)
    notmuch("new", "--quiet")
    for top in (twin.plain, twin.low):
        with open(os.path.join(top, "u", "new", "1700000001.M1P1.host"), "xb") as f:
            f.write(message(500))
    twin.m.proven("u", "new")
    notmuch("new", "--quiet")
    assert notmuch("count", "id:m500@example.org") == b"1\n"

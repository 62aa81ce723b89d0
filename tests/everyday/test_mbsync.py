# SPDX-License-Identifier: GPL-2.0-or-later
"""mbsync (isync): two mailboxes are kept equal, one of them in the tree, the other on the disk. It keeps UIDs in the
names (,U=n) and writes flags into them."""

import os

import pytest

from mail import assert_mail, flags, left, subject
from twin import maildir, message

RC = """
MaildirStore far
Inbox {top}/u
SubFolders Maildir++

MaildirStore near
Inbox {near}
SubFolders Maildir++

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
CopyArrivalDate yes
SyncState {state}
"""


@pytest.fixture(params=["beside", "*"])
def mbsync(twin, request):
    """Its own state beside, or in the mailboxes."""

    def run():
        for top in (twin.plain, twin.mnt):
            name = os.path.basename(top)
            home = os.path.join(twin.m.dir, "home." + name)
            os.makedirs(os.path.join(home, "state"), exist_ok=True)
            state = "*" if request.param == "*" else os.path.join(home, "state") + "/"
            with open(os.path.join(home, "rc"), "w", encoding="utf-8") as f:
                f.write(RC.format(top=top, near=os.path.join(home, "near"), state=state))
            # It says when it waits for the second of a change to pass, which is by chance.
            code, out, err = twin.run_in(top, "mbsync", "-c", os.path.join(home, "rc"), "all", env={"HOME": home})
            assert code == 0 and err == b"", out + err

    for name in ("plain", "mnt"):
        os.makedirs(os.path.join(twin.m.dir, "home." + name))
        maildir(os.path.join(twin.m.dir, "home." + name, "near"), 0)
    return run


def near(twin, name):
    return os.path.join(twin.m.dir, "home." + name, "near")


def assert_equal_sides(twin, folder=""):
    """Both sides hold each message once, with the same flags; in both trees the same. (In each copy that it makes,
    mbsync leaves a header with a random number: so what a message says is its subject.)"""
    sides = [os.path.join(twin.plain, "u", folder), os.path.join(twin.mnt, "u", folder)]
    sides += [os.path.join(near(twin, name), folder) for name in ("plain", "mnt")]
    kept = [sorted((f, data) for _, f, data in left(side, subject)) for side in sides]
    assert kept[0] == kept[1] == kept[2] == kept[3]
    subjects = [data for _, data in kept[0]]
    assert len(subjects) == len(set(subjects)), "a message was doubled"
    return len(subjects)


def uids(folder):
    """{subject: UID}: none given twice."""
    out = {}
    for half in ("new", "cur"):
        for name in os.listdir(os.path.join(folder, half)):
            with open(os.path.join(folder, half, name), "rb") as f:
                out[subject(f.read())] = int(name.split(",U=")[1].split(":")[0])
    assert len(set(out.values())) == len(out)
    return out


def change(folder, seed, create):
    """Some of everything, in one side."""
    cur = os.path.join(folder, "cur")
    ours = [n for n in os.listdir(cur) if ".M" in n]
    for i, name in enumerate(sorted(ours, key=lambda n: int(n.split(".M")[1].split("P")[0]))):
        path = os.path.join(cur, name)
        if (i + seed) % 7 == 0:
            os.unlink(path)
        elif (i + seed) % 7 == 1:
            os.rename(path, os.path.join(cur, name.split(":")[0] + ":2," + "".join(sorted(set(flags(name)) ^ {"F"}))))
        elif (i + seed) % 7 == 2:
            os.rename(path, os.path.join(cur, name.split(":")[0] + ":2,ST"))
    for i in range(create):
        n = 1000 * (seed + 1) + i
        tmp, new = (os.path.join(folder, half, f"17{n:08}.M{n}P1.host") for half in ("tmp", "new"))
        with open(tmp, "xb") as f:
            f.write(message(n))
        os.rename(tmp, new)


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.full)])
def test_both_ways(twin, mbsync, rounds):
    """It waits for a second to pass after each change of a folder."""
    twin.fill()
    mbsync()
    assert assert_equal_sides(twin) == 40 and assert_equal_sides(twin, ".Sent") == 11
    known = uids(os.path.join(twin.mnt, "u"))
    mbsync()
    assert uids(os.path.join(twin.mnt, "u")) == known
    for round_ in range(rounds):
        for top in (twin.plain, twin.mnt):
            change(os.path.join(top, "u"), round_, 5)
        if round_ % 3 == 0:
            twin.m.fs_restart()
        mbsync()
        assert_equal_sides(twin)
        mbsync()
        assert_equal_sides(twin)
        now = uids(os.path.join(twin.mnt, "u"))
        assert all(now[data] == uid for data, uid in known.items() if data in now), "a message got another UID"
        known |= now
        twin.true("u")


def test_folders_come_and_go(twin, mbsync):
    twin.fill()
    mbsync()
    for top in (twin.plain, twin.mnt):
        maildir(os.path.join(top, "u", ".Lists"), 12)
    mbsync()
    assert assert_equal_sides(twin, ".Lists") == 12
    for top in (twin.plain, twin.mnt):
        os.rename(os.path.join(top, "u", ".Lists"), os.path.join(top, "u", ".Old"))
    twin.m.same("u", ".Old", "cur")
    assert_mail(twin, "u/.Old")

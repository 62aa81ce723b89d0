# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what (law 6): each operation as the owner, as a member of the group (by its own group or by a supplementary one), as
somebody else and as root, in folders of all modes, has the answer that the plain tree gives; and leaves the same there."""

import os
import stat

import pytest

from daemon import make_maildir
from faultfs import Faulty
from host import as_user, getdents_all, opened

OWNER, GROUP, MEMBER, STRANGER = 2345, 3456, 4567, 5678
USERS = {
    "owner": (OWNER, OWNER, []),
    "member": (MEMBER, GROUP, []),
    "member by a supplementary group": (MEMBER, MEMBER, [7890, GROUP]),
    "stranger": (STRANGER, STRANGER, [STRANGER]),
    "root": (0, 0, []),
}
# Of the Maildir and its halves, and of messages.
MODES = [
    (0o700, 0o600), (0o750, 0o640), (0o770, 0o660), (0o755, 0o644), (0o711, 0o600), (0o733, 0o622), (0o1777, 0o666),
    (0o2775, 0o664), (0o500, 0o400), (0o000, 0o000),
]  # fmt: skip


def read(path):
    with open(path, "rb") as f:
        return f.read()


def put(path, how="wb"):
    with open(path, how) as f:
        f.write(b"put")


def made(path):
    st = os.lstat(path)
    return stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid


def entries(path):
    with opened(path) as fd:
        return sorted(name for _, _, _, name in getdents_all(fd))


def message(n):
    return f"cur/16000{n:05}.M1P1.host:2,S"


# Each with a message of its own, so that none changes another's answer.
OPERATIONS = {
    "list cur": lambda top: entries(f"{top}/cur"),
    "list new": lambda top: entries(f"{top}/new"),
    "list tmp": lambda top: entries(f"{top}/tmp"),
    "list the Maildir": entries,
    "stat": lambda top: made(f"{top}/{message(0)}"),
    "stat of what is not there": lambda top: made(f"{top}/cur/nothing"),
    "read": lambda top: read(f"{top}/{message(1)}"),
    "append": lambda top: put(f"{top}/{message(2)}", "ab"),
    "overwrite": lambda top: put(f"{top}/{message(3)}"),
    "truncate": lambda top: os.truncate(f"{top}/{message(4)}", 2),
    "flag": lambda top: os.rename(f"{top}/{message(5)}", f"{top}/{message(5)}T"),
    "move to cur": lambda top: os.rename(f"{top}/new/1700000000.M1P1.host", f"{top}/cur/1700000000.M1P1.host:2,"),
    "expunge": lambda top: os.unlink(f"{top}/{message(6)}"),
    "rename over": lambda top: os.rename(f"{top}/{message(7)}", f"{top}/{message(8)}"),
    "link": lambda top: os.link(f"{top}/{message(9)}", f"{top}/tmp/link"),
    "deliver": lambda top: put(f"{top}/tmp/18.M1P1.host", "xb") or made(f"{top}/tmp/18.M1P1.host"),
    "insert": lambda top: put(f"{top}/cur/19.M1P1.host:2,", "xb") or made(f"{top}/cur/19.M1P1.host:2,"),
    "create what is there": lambda top: put(f"{top}/{message(10)}", "xb"),
    "mkdir": lambda top: os.mkdir(f"{top}/.Sub", 0o775) or made(f"{top}/.Sub"),
    "mkdir in cur": lambda top: os.mkdir(f"{top}/cur/sub") or made(f"{top}/cur/sub"),
    "rmdir": lambda top: os.rmdir(f"{top}/.Empty"),
    "rmdir of what is not empty": lambda top: os.rmdir(f"{top}/cur"),
    "move a folder": lambda top: os.rename(f"{top}/.Moves", f"{top}/.Moved"),
    "symlink": lambda top: os.symlink("/etc/passwd", f"{top}/tmp/symlink") or made(f"{top}/tmp/symlink"),
    "fifo": lambda top: os.mkfifo(f"{top}/tmp/fifo") or made(f"{top}/tmp/fifo"),
    "chmod": lambda top: os.chmod(f"{top}/{message(11)}", 0o640) or made(f"{top}/{message(11)}"),
    "chmod of cur to what it is": lambda top: os.chmod(f"{top}/cur", stat.S_IMODE(os.stat(f"{top}/cur").st_mode)),
    "chgrp": lambda top: os.chown(f"{top}/{message(12)}", -1, GROUP) or made(f"{top}/{message(12)}"),
    "chown": lambda top: os.chown(f"{top}/{message(13)}", STRANGER, -1) or made(f"{top}/{message(13)}"),
    "touch": lambda top: os.utime(f"{top}/{message(14)}"),
    "set times": lambda top: os.utime(f"{top}/{message(15)}", (1, 1)) or os.stat(f"{top}/{message(15)}").st_mtime,
    "may read cur": lambda top: os.access(f"{top}/cur", os.R_OK),
    "may write cur": lambda top: os.access(f"{top}/cur", os.W_OK),
    "may enter cur": lambda top: os.access(f"{top}/cur", os.X_OK),
    "may read a message": lambda top: os.access(f"{top}/{message(16)}", os.R_OK),
    "setxattr": lambda top: os.setxattr(f"{top}/{message(17)}", "user.test", b"x"),
    "getxattr": lambda top: os.getxattr(f"{top}/{message(18)}", "user.test"),
    "removexattr": lambda top: os.removexattr(f"{top}/{message(18)}", "user.test"),
    "listxattr": lambda top: os.listxattr(f"{top}/{message(19)}"),
    "out by ..": lambda top: entries(f"{top}/cur/../../other/cur"),
    "out by a symlink": lambda top: entries(f"{top}/to-other"),
    "chdir to cur": lambda top: os.chdir(f"{top}/cur"),
}


def tree(top, modes):
    """A Maildir and another one beside it, which only its owner, somebody else, may enter."""
    u, other = os.path.join(top, "u"), os.path.join(top, "other")
    make_maildir(u, new=1, cur=20)
    make_maildir(other, cur=2, uid=OWNER + 1)
    for name in (".Empty", ".Moves", ".Moves/cur"):
        os.mkdir(os.path.join(u, name))
    os.setxattr(os.path.join(u, message(18)), "user.test", b"y")
    os.symlink("../other/cur", os.path.join(u, "to-other"))
    for path, dirs, files in os.walk(u):
        for name in files:
            full = os.path.join(path, name)
            os.chown(full, OWNER, GROUP, follow_symlinks=False)
            if not os.path.islink(full):
                os.chmod(full, modes[1])
        for name in dirs:
            full = os.path.join(path, name)
            os.chown(full, OWNER, GROUP, follow_symlinks=False)
    for name in ("new", "cur", "tmp", ".Moves", ""):
        os.chown(os.path.join(u, name), OWNER, GROUP)
        os.chmod(os.path.join(u, name), modes[0])


def answers(top):
    """{operation: what it returned, or its errno}."""

    def answer(operation):
        try:
            return operation(top)
        except OSError as e:
            return f"errno {e.errno}"

    os.umask(0o022)
    return {what: answer(operation) for what, operation in OPERATIONS.items()}


def left(top):
    """All that is there: type, mode, owner, group and content."""
    return {
        os.path.relpath(full, top): (*made(full), content(full))
        for path, dirs, files in os.walk(top)
        for full in (os.path.join(path, name) for name in [*dirs, *files])
    }


def content(path):
    return read(path) if stat.S_ISREG(os.lstat(path).st_mode) else None


@pytest.fixture(name="faulty")
def on_a_network_filesystem():
    with Faulty() as m:
        yield m


@pytest.mark.parametrize("spares", [False, True], ids=["local", "as on NFS"])
@pytest.mark.parametrize("user", USERS)
def test_the_plain_trees_answers(user, spares, request):
    m = request.getfixturevalue("faulty" if spares else "maildex")
    uid, gid, groups = USERS[user]
    for n, modes in enumerate(MODES):
        for where in ("plain", "mounted"):
            os.makedirs(os.path.join(m.made, where, str(n)), 0o755)
            tree(os.path.join(m.made, where, str(n)), modes)
    m.fs_start()
    for n, modes in enumerate(MODES):
        plain, mounted = m.low("plain", str(n), "u"), m.up("mounted", str(n), "u")
        expected = as_user(uid, lambda top=plain: answers(top), gid, groups)
        assert as_user(uid, lambda top=mounted: answers(top), gid, groups) == expected, f"modes {modes[0]:o}, {modes[1]:o}"
        assert left(os.path.join(m.made, "mounted", str(n))) == left(os.path.join(m.made, "plain", str(n)))
    seen = {str(a) for a in expected.values()}
    assert user == "root" or "errno 13" in seen

# SPDX-License-Identifier: GPL-2.0-or-later
"""mblaze: small programs that each list a folder, and rename what is in it."""

import os

import pytest

from mail import assert_mail


def sh(twin, script, **kw):
    return twin.run("sh", "-c", script, env={"MBLAZE": os.path.join(twin.m.dir, "mblaze")}, **kw)


@pytest.mark.parametrize(
    "script",
    [
        "mdirs . | sed 's,.*/u,u,' | sort",
        "mlist u | sort",
        "mlist -N u | sort; mlist -S u/.Sent | sort; mlist -F u | sort; mlist -C u | sort",
        "mlist -i u u/.Sent",
        "mlist u | sort | mscan -f '%u %i %s'",
        "mlist u | sort | magrep 'subject:matter .1'",
        "mlist u u/.Sent | sort | mpick -t 'seen && subject =~ \"matter 1\"'",
        "mlist u | sort | mthread",
        "mlist u | sort | maddr | sort -u",
    ],
)
def test_looking(twin, script):
    twin.fill()
    assert sh(twin, script) != b""
    twin.true()


@pytest.mark.parametrize(
    "script",
    [
        "minc u | sort",
        "minc u u/.Sent >list; sort list",
        "mlist -N u | mflag -S | sort",
        "mlist u/cur | sort | head -8 | mflag -FR | sort",
        "mlist -s u/cur | mflag -T -s | sort; mlist u | sort | mflag -St | sort",
        "minc u | sort | mflag -F | sort; mlist -F u | mflag -f | sort; mlist u | sort",
        "mlist u | sort | head -10 | mrefile u/.Sent; mlist u | wc -l; mlist u/.Sent | wc -l",
        "mlist u | sort | mrefile -k u/.Sent; mlist -i u u/.Sent",
        "mmkdir u/.New; mlist u/cur | sort | mrefile u/.New; mlist u/cur; mlist u/.New | wc -l",
        "printf 'Subject: sent\\n\\nx\\n' | mdeliver u >/dev/null; mlist -N u | wc -l",
        "mlist u | sort | mseq -S; mseq 2:4; mseq | mflag -S | mseq -S; mseq : | sort | tail",
    ],
)
def test_changing(twin, script):
    """The same names too, but of what it makes itself."""
    twin.fill()
    sh(twin, script, sort=False)
    assert_mail(twin, "u", "u/.Sent")
    if os.path.exists(os.path.join(twin.plain, "u", ".New")):
        assert_mail(twin, "u/.New")
    twin.true()
    sh(twin, "mlist -i u u/.Sent; mlist u | wc -l")

# SPDX-License-Identifier: GPL-2.0-or-later
"""fio --verify: what was written is read back, block by block, through the mount and below it."""

import os

import pytest

from twin import assert_same, facts

BASE = ("fio", "--name=v", "--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--minimal", "--fallocate=none")


@pytest.mark.parametrize("where", ["u/cur", "p"])
@pytest.mark.parametrize(
    "engine",
    [
        ("--ioengine=psync",),
        ("--ioengine=mmap",),
        ("--ioengine=psync", "--direct=1"),
        ("--ioengine=libaio", "--direct=1", "--iodepth=8"),
        ("--ioengine=psync", "--fsync=16", "--overwrite=1"),
    ],
    ids=lambda e: " ".join(e),
)
def test_random_writes_are_read_back(twin, where, engine):
    twin.fill()
    job = (*BASE, "--filename=1700000000.M1P1.host:2,S".replace(":", "\\:"), "--bs=4k", "--size=2m", *engine)
    for top in (twin.plain, twin.mnt):
        code, out, err = twin.run_in(top, *job, "--rw=randwrite", "--do_verify=1", cwd=where)
        assert code == 0, out + err
    # Once more, from below and by another reader.
    for top in (twin.low, twin.mnt):
        code, out, err = twin.run_in(top, *job, "--rw=randwrite", "--verify_only", cwd=where)
        assert code == 0, out + err
    # What it writes is new each time, so the trees differ from each other, but not the mount from what is below it.
    assert_same(facts(os.path.join(twin.low, where)), facts(os.path.join(twin.mnt, where)))
    twin.true(where)


@pytest.mark.full
@pytest.mark.parametrize("engine", ["psync", "mmap", "libaio"])
def test_many_jobs(twin, engine):
    twin.fill()
    job = (*BASE, "--directory=.", "--size=32m", "--numjobs=4", "--nrfiles=8", "--bsrange=512-64k")
    job += (f"--ioengine={engine}",)
    code, out, err = twin.run_in(twin.mnt, *job, "--rw=randrw", "--do_verify=1", cwd="p")
    assert code == 0, out + err
    assert len([n for n in os.listdir(os.path.join(twin.low, "p")) if n.startswith("v.")]) == 32

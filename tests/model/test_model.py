# SPDX-License-Identifier: GPL-2.0-or-later
"""A seeded random machine: two or three hosts over one tree, silent writers, restarts, lost, late and doubled events, clock
steps, rollbacks and changes inside operations; after each step an oracle compares (oracle.py).

MAILDEX_MODEL_STEPS (10000) in lives of 1250 steps, from seed MAILDEX_MODEL_SEED (1) on. A life that fails prints what is left of
it after MAILDEX_MODEL_SHRINK_S (120) seconds of leaving out, and MAILDEX_MODEL_REPLAY=FILE plays such a log again. corpus/ has
those that found something.
An operation, or a schedule of the model's report, that never occurred in all lives of a run fails it."""

import fcntl
import glob
import json
import os
import tempfile
import time

import pytest

from life import Failed, Life, read, shrink, text_of, wanted
from schedules import LEFT_OUT
from world import draw

LIFE = 1250
STEPS = int(os.environ.get("MAILDEX_MODEL_STEPS", "10000"))
SEED = int(os.environ.get("MAILDEX_MODEL_SEED", "1"))
SHRINK_S = float(os.environ.get("MAILDEX_MODEL_SHRINK_S", "120"))
REPLAY = os.environ.get("MAILDEX_MODEL_REPLAY")
CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "*.replay")
LIVES = max(1, -(-STEPS // LIFE))
RUN = os.path.join(tempfile.gettempdir(), "maildex-model-" + os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())))


def all_counts(counts):
    """Adds a life's counts to the run's; returns those of all, and whether it was the last of them."""
    with open(RUN, "a+", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(json.dumps(counts) + "\n")
        f.flush()
        f.seek(0)
        lives = [json.loads(line) for line in f]
        if len(lives) == LIVES:
            os.unlink(RUN)
    total = {}
    for life in lives:
        for what, n in life.items():
            total[what] = total.get(what, 0) + n
    return total, len(lives) == LIVES


def explained(failed, seed):
    log, played = shrink(failed, SHRINK_S) if SHRINK_S else (failed.log, 0)
    with tempfile.NamedTemporaryFile("w", prefix=f"maildex-model-{seed}-", suffix=".replay", delete=False) as f:
        f.write(text_of(failed.params, log))
    return (
        f"seed {seed}: {failed.text}\n{len(log)} of {len(failed.log)} steps are left ({played} replays), in {f.name}:\n"
        + text_of(failed.params, log[-60:])
    )


@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", range(LIVES))
def test_life(number, figures):
    if REPLAY:
        pytest.skip("a replay")
    seed, began, life = SEED + number, time.monotonic(), Life(draw(SEED + number))
    failed = None
    try:
        life.live(seed, min(LIFE, STEPS - number * LIFE))
    except Failed as f:
        failed = f
    figures({"seed": seed, "seconds": round(time.monotonic() - began), "steps": len(life.log), "nothing": life.counts.get("nothing", 0)})
    total, last = all_counts(life.counts)
    if failed:
        pytest.fail(explained(failed, seed), pytrace=False)
    if last:
        figures({k: total[k] for k in sorted(total)})
        never = [what for what in wanted() if not total.get(what)]
        assert not never, f"never occurred: {never}; left out: {LEFT_OUT}"


@pytest.mark.timeout(0)
@pytest.mark.parametrize("path", [REPLAY] if REPLAY else sorted(glob.glob(CORPUS)), ids=os.path.basename)
def test_replay(path):
    params, log = read(path)
    try:
        Life(params).replay(log)
    except Failed as f:
        pytest.fail(f.text, pytrace=False)

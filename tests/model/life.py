# SPDX-License-Identifier: GPL-2.0-or-later
"""A life: a world drawn by a seed, and so many steps in it, each checked; its log, which replays it; and what is left of the
log when all is taken out that the failure does not need."""

import contextlib
import faulthandler
import json
import random
import signal
import sys
import time
import traceback

import schedules
from daemon import WAIT_S
from ops import OPS
from oracle import Oracle
from world import Nothing, World, Wrong

REST_EVERY = 160
CHECKS = ("touched", "touched", "touched", "all", "poll", "none")


class Failed(Exception):
    """A life that went wrong: the log, and what was said."""

    def __init__(self, params, log, rule, text):
        super().__init__(text)
        self.params, self.log, self.rule, self.text = params, log, rule, text


def rule_of(e):
    """What kind of failure it is: shrinking looks for the same."""
    return str(e).split(":", 1)[0] if isinstance(e, Wrong) else type(e).__name__


@contextlib.contextmanager
def watched(step):
    """A step that hangs is a failure like others."""

    def hangs(*_):
        faulthandler.dump_traceback(file=sys.__stderr__)
        raise Wrong(f"hang: {step}")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(2 * WAIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Life:
    def __init__(self, params):
        self.params, self.log, self.counts = params, [], {}

    def live(self, seed, steps):
        """Draws steps and does them. Raises Failed."""
        rng = random.Random(f"life {seed}")
        names = list(OPS)
        weights = [OPS[n][0] for n in names]

        def draws(w):
            for step in range(steps):
                yield self._draw(w, rng, names, weights) if step % REST_EVERY else ["rest", {}, "none"]
            yield ["rest", {"final": True}, "none"]

        self._run(draws)
        return self.counts

    @staticmethod
    def _draw(w, rng, names, weights):
        while True:
            name = rng.choices(names, weights)[0]
            try:
                return [name, OPS[name][1](w, rng), rng.choice(CHECKS)]
            except Nothing:
                pass

    def replay(self, log):
        self._run(lambda w: log)

    def _run(self, draws):
        w = World(dict(self.params))
        try:
            with w:
                w.oracle = Oracle(w)
                self.counts = w.counts
                for step in draws(w):
                    self.log.append(step)
                    with watched(step):
                        self._step(w, *step)
        except Exception as e:  # pylint: disable=broad-except
            where = "".join(traceback.format_exception(e)[-6:])
            raise Failed(self.params, self.log, rule_of(e), f"{e}\n{where}") from e

    def _step(self, w, name, arguments, check):
        if name == "rest":
            w.oracle.rest(**arguments)
            return
        try:
            OPS[name][2](w, **arguments)
            w.count(name)
        except Nothing:
            w.count("nothing")
        self._check(w, check)

    @staticmethod
    def _check(w, check):
        """touched: the halves that changed last, where they were not looked at since."""
        halves = {"none": [], "all": w.halves(), "poll": w.records.lately(2), "touched": w.records.lately(2)}[check]
        for half in halves:
            for h in w.hosts:
                if check == "poll":
                    w.oracle.poll(h.number, half)
                else:
                    w.oracle.check(h.number, half)


def shrink(failed, seconds):
    """ddmin: leaves out parts while the same rule is broken; returns the shortest log found, and how often it was played."""
    end, log, played, plays = time.monotonic() + seconds, failed.log, 0, 1

    def fails(shorter):
        nonlocal played
        for _ in range(plays):
            played += 1
            try:
                Life(failed.params).replay(shorter)
            except Failed as f:
                if f.rule == failed.rule:
                    return True
            if time.monotonic() > end:
                break
        return False

    if not fails(log):
        plays = 5  # it takes luck, too
    for shorter in ([s for s in log if s[0] != "rest"], log[-80:], log[-40:], log[-20:]):  # rests take long
        if shorter and len(shorter) < len(log) and time.monotonic() < end and fails(shorter):
            log = shorter
    parts = 2
    while len(log) > 1 and time.monotonic() < end:
        size = max(1, len(log) // parts)
        for at in range(0, len(log), size):
            shorter = log[:at] + log[at + size :]
            if time.monotonic() > end:
                break
            if shorter and fails(shorter):
                log, parts = shorter, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(log), parts * 2)
    return log, played


def text_of(params, log):
    return "\n".join([json.dumps(params), *map(json.dumps, log)]) + "\n"


def read(path):
    with open(path, encoding="utf-8") as f:
        params, *log = [json.loads(line) for line in f if line.strip() and not line.startswith("#")]
    return params, log


def wanted():
    """All that has to occur in a run."""
    events = {"event", "double an event", "delay an event", "drop an event", "rewind"}
    inside = {f"inside {what}" for what in schedules.OWN}
    return sorted({n for n in OPS if not n.startswith("c") or not n[1:].isdigit()} | events | inside | set(schedules.SCHEDULES))


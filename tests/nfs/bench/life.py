# SPDX-License-Identifier: GPL-2.0-or-later
"""A compressed hour of mail life: 20 mailboxes, POP3 polls and webmail-like IMAP logins on one or two mail-fetch hosts,
deliveries by another host that tells nobody. The same seeded hour on plain NFS and through maildexfs, step by step.

The hour is not waited for: its sessions follow each other at once, but for GAP_S between two of one mailbox.
"""

import collections
import contextlib
import dataclasses
import random
import re
import statistics
import time

import calls
from box import Box
from mailboxes import LIFE, WAYS, life, polled
from tracing import named

SEED = 5
HOSTS = ("mf1", "mf2")
# Steps of an hour, and in the long run.
STEPS, STEPS_FULL = 120, 600
# Longer than `revalidate`: what one session asked is not to help the next one.
GAP_S = 1.2
HEADERS = "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)])"


@dataclasses.dataclass(frozen=True)
class Step:
    kind: str  # delivery, pop3, imap
    user: int
    host: str
    dice: tuple  # for what a session does, each in [0, 1)


def steps(count, hosts, seed=SEED):
    dice = random.Random(seed)
    out = []
    for _ in range(count):
        kind = dice.choices(("delivery", "pop3", "imap"), (25, 30, 45))[0]
        users = [u for u in range(len(LIFE)) if kind == "delivery" or (kind == "pop3") == polled(u)]
        out.append(Step(kind, dice.choice(users), dice.choice(hosts), tuple(dice.random() for _ in range(6))))
    return out


def webmail(talk, dice):
    """Shows the newest messages, reads one, flags or deletes some. Returns what was told, to be compared."""
    told = talk.imap("SELECT INBOX")
    count = next(int(line.split()[1]) for line in told if line.endswith(b" EXISTS\r\n"))
    if count:
        first = max(1, count - 19)
        shown = talk.imap(f"FETCH {first}:{count} {HEADERS}")
        told.append(b"%d shown" % sum(b" FETCH " in line for line in shown))
        pick = first + int(dice[0] * (count - first + 1))
        talk.imap(f"FETCH {pick} BODY[]")
        if dice[1] < 0.3:
            talk.imap(f"STORE {1 + int(dice[2] * count)} +FLAGS (\\Flagged)")
        if dice[3] < 0.2:
            talk.imap(f"STORE {1 + int(dice[4] * count)} +FLAGS (\\Deleted)")
            talk.imap("EXPUNGE")
        told += talk.imap("UID SEARCH UNSEEN")
    talk.imap("NOOP")
    talk.imap("LOGOUT")
    talk.close()
    return count


def poll(talk, dice):
    """Leaves most on the server."""
    talk.pop3("STAT")
    count = len(talk.pop3("UIDL")) - 2
    talk.pop3("LIST")
    if count:
        talk.pop3(f"RETR {count}")
        if dice[1] < 0.3:
            talk.pop3(f"DELE {1 + int(dice[2] * count)}")
    talk.pop3("QUIT")
    talk.close()
    return count


@dataclasses.dataclass
class Hour:
    """Of one way."""

    ops: dict  # {kind: calls.Op} of both hosts
    seconds: dict  # {"pop3" | "imap": [of each session]}


class Life:
    def __init__(self, server, driver, others, version, hosts, say, tracer=None):
        """server: courier or dovecot; driver: what talks to it; say(text) tells how far it is."""
        self.tracer, self.origins = tracer, collections.Counter()
        self.hosts, self.ended = HOSTS[:hosts], {}
        self.server, self.driver, self.others, self.version, self.say = server, driver, others, version, say
        self.seconds = {way: collections.defaultdict(list) for way in WAYS}

    def _box(self, way, host):
        return Box(way, self.version, f"/life/{self.server}-{way}", f"v{self.version}-life-{self.server}-{len(self.hosts)}-{host}", host)

    def _session(self, box, step, protocol):
        who = box.home_of(life(step.user)) if self.server == "courier" else box.user_of(life(step.user))
        talk = getattr(self.driver, protocol)(who)
        return webmail(talk, step.dice) if protocol == "imap" else poll(talk, step.dice)

    @contextlib.contextmanager
    def _traced(self, box, way, step):
        if not self.tracer or way != "mount":
            yield
            return
        with self.tracer.login(box, f"hour-{len(self.origins)}-{step.kind}-{step.user}") as found:
            yield
            box.at_rest()
        for n, kind, request, what in named(found):
            self.origins[step.kind, kind, request, re.sub(r"\bu\d+/", "", what)] += n

    def _step(self, boxes, way, step):
        box = boxes[way, step.host]
        if step.kind == "delivery":
            self.others.deliver(box, life(step.user))
            return None
        start = time.monotonic()
        with self._traced(box, way, step):
            count = self._session(box, step, step.kind)
        self.seconds[way][step.kind].append(time.monotonic() - start)
        return count

    def _warm(self, boxes):
        """Every mailbox was used on every host before the hour begins."""
        for user, size in enumerate(LIFE):
            self.say(f"hour of {self.server}: the mailbox of {size} messages is used once on each host")
            for host in self.hosts:
                for way in WAYS:
                    step = Step("", user, host, (0.5, 1, 0, 1, 0, 0))
                    self._session(boxes[way, host], step, "pop3" if polled(user) else "imap")
        for box in boxes.values():
            box.at_rest()

    def _gap(self, step):
        """Since the last session of this mailbox on any host."""
        time.sleep(max(0, self.ended.get(step.user, 0) + GAP_S - time.monotonic()))

    def run(self, count, between):
        """between(): called before each step. Returns {way: Hour} and in how many sessions plain and mount told of different
        numbers of messages."""
        plan, differ = steps(count, self.hosts), 0
        with contextlib.ExitStack() as stack:
            boxes = {(w, h): stack.enter_context(self._box(w, h)) for w in WAYS for h in self.hosts}
            self._warm(boxes)
            before = {at: box.called() for at, box in boxes.items()}
            for number, step in enumerate(plan):
                between()
                self._gap(step)
                told = {self._step(boxes, way, step) for way in WAYS}
                differ += len(told) != 1
                self.ended[step.user] = time.monotonic()
                if number % 20 == 0:
                    self.say(f"hour of {self.server}: {number} of {count} steps")
            after = {at: box.at_rest() for at, box in boxes.items()}
            for (way, host), box in boxes.items():
                if way == "mount":
                    told = " ".join(f"{k.removeprefix('maildexfs.')} {v}" for k, v in box.tells().items() if v)
                    self.say(f"maildexfs on {host}, with the first use of each mailbox: {told}")
        for what, n in self.origins.most_common(60):
            self.say(f"{n:5} " + " ".join(what))
        out = {}
        for way in WAYS:
            ops = {}
            for host in self.hosts:
                for kind, op in calls.diff(before[way, host], after[way, host]).items():
                    ops[kind] = calls.Op(*map(sum, zip(ops.get(kind, calls.Op()), op)))
            out[way] = Hour(ops, dict(self.seconds[way]))
        return out, differ


def median(hour, kind):
    return statistics.median(hour.seconds[kind])

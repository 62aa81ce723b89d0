#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, as Markdown, and which bars it reaches. `tables.py FILE` prints those of an earlier run.

Shapes: a result is what bench/run writes into $OUT/bench.json: {"logins": [login...], "hours": [hour...], "remains":
[...]}; a login is {version, server, size, situation, way, ops: {kind: [calls, sent, received]}, behind: calls,
seconds, told}. Rows put the plain and the mounted login side by side.
"""

import collections
import json
import math
import statistics
import sys

TITLES = {
    "first": "first ever",
    "again": "again, unchanged",
    "expired": "again, after the attribute cache ran out",
    "delivery": "after a delivery",
    "own": "after this host changed a flag",
    "flag": "after another host changed a flag",
    "moved": "after another host moved a message",
    "steady": "another host changes flags all the time",
    "again-32k": "again, unchanged, transfers of 32 KB",
    "own-32k": "after this host changed a flag, transfers of 32 KB",
    "flag-32k": "after another host changed a flag, transfers of 32 KB",
}
NAMES = {
    "courier-imap": "Courier IMAP",
    "courier-pop3": "Courier POP3",
    "dovecot-imap": "Dovecot IMAP",
    "dovecot-pop3": "Dovecot POP3",
}
# Calls that carry a server's own files: those grow with the folder.
CONTENT = ("READ", "READ_PLUS", "WRITE", "COMMIT")
FLAT = ("again", "expired", "delivery", "own")
BIG = 100000
# Names of temporary files differ in length from login to login.
BYTES_SLACK = 1.01


class Side:
    """One way of one row: the mean of its logins (one, but for "steady")."""

    def __init__(self, logins):
        n = len(logins)
        ops = collections.defaultdict(lambda: [0, 0, 0])
        for login in logins:
            for kind, numbers in login["ops"].items():
                for i in range(3):
                    ops[kind][i] += numbers[i] / n
        self.ops = {kind: tuple(numbers) for kind, numbers in ops.items()}
        self.seconds = statistics.median(login["seconds"] for login in logins)
        self.messages = [login.get("messages") for login in logins]
        self.behind = sum(login["behind"] for login in logins) / n
        self.listings = sum(login["told"].get("maildexfs.lower.listings", 0) for login in logins) / n

    def _sum(self, at, kinds=None, without=()):
        return sum(op[at] for kind, op in self.ops.items() if (not kinds or kind in kinds) and kind not in without)

    def calls(self, without=()):
        return self._sum(0, without=without)

    def readdirs(self):
        return self._sum(0, ("READDIR", "READDIRPLUS"))

    def sent(self):
        return self._sum(1)

    def received(self, without=()):
        return self._sum(2, without=without)

    def both(self, without=()):
        return self._sum(1, without=without) + self._sum(2, without=without)


def rows(result):
    """{(version, server, size, situation): {way: Side}}, in the order of measuring."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for login in result["logins"]:
        key = login["version"], login["server"], login["size"], login["situation"]
        found[key][login["way"]].append(login)
    return {key: {way: Side(logins) for way, logins in ways.items()} for key, ways in found.items() if len(ways) == 2}


def alike(ways):
    """Did both tell of the same messages and flags? Plain NFS may not see a change while it trusts its caches."""
    return ways["plain"].messages == ways["mount"].messages


# -- words


def number(n):
    return f"{n:,.0f}" if abs(n - round(n)) < 0.05 else f"{n:,.1f}"


def size(n):
    for unit, name in ((1e6, "MB"), (1e3, "KB")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n:.0f} B"


def arrow(plain, mount, word=number):
    return f"{word(plain)} → {word(mount)}"


def kinds(plain, mount):
    names = sorted({*plain.ops, *mount.ops}, key=lambda k: -plain.ops.get(k, (0,))[0] - mount.ops.get(k, (0,))[0])
    return ", ".join(f"{k} {arrow(plain.ops.get(k, (0,))[0], mount.ops.get(k, (0,))[0])}" for k in names)


def table(head, body):
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(line) + " |" for line in body)]
    )


# -- one login


def logins(found):
    out = []
    for version, server in dict.fromkeys((v, s) for v, s, _, _ in found):
        body = []
        ours = [(key, ways) for key, ways in found.items() if key[:2] == (version, server)]
        order = list(TITLES)
        for (_, _, count, situation), ways in sorted(ours, key=lambda row: (order.index(row[0][3]), row[0][2])):
            plain, mount = ways["plain"], ways["mount"]
            body.append(
                (
                    TITLES[situation] + ("" if alike(ways) else " (plain saw it later)"),
                    f"{count:,}",
                    arrow(plain.calls(), mount.calls()) + (f" ({number(mount.behind)} behind)" if mount.behind else ""),
                    arrow(plain.readdirs(), mount.readdirs()),
                    arrow(plain.sent(), mount.sent(), size),
                    arrow(plain.received(), mount.received(), size),
                    arrow(plain.seconds, mount.seconds, lambda s: f"{s:.2f}"),
                    kinds(plain, mount),
                )
            )
        head = ("login", "messages", "calls", "READDIR", "sent", "received", "seconds", "by kind")
        out.append(f"### {NAMES[server]}, NFS {version}: plain → mount\n\n{table(head, body)}")
    return out


def remains(result):
    out = []
    for one in result["remains"]:
        body = [(str(n), f"`{kind}`", request, step) for n, kind, request, step in one["calls"]]
        out.append(
            f"### {NAMES[one['server']]}, NFS {one['version']}: what remains of an unchanged login on the mount "
            f"({one['size']:,} messages)\n\n" + table(("calls", "kind", "asked for by", "for"), body)
        )
    return out


# -- the hour


def hour_sides(hour):
    return [Side([{"ops": hour[way]["ops"], "seconds": 0, "behind": 0, "told": {}}]) for way in ("plain", "mount")]


def hosts_of(hour):
    return "one host" if hour["hosts"] == 1 else f"{hour['hosts']} hosts"


def hours(result):
    out = []
    for hour in result["hours"]:
        plain, mount = hour_sides(hour)
        body = [
            ("calls", number(plain.calls()), number(mount.calls())),
            ("READDIR of all kinds", number(plain.readdirs()), number(mount.readdirs())),
            ("bytes sent", size(plain.sent()), size(mount.sent())),
            ("bytes received", size(plain.received()), size(mount.received())),
        ]
        for kind, name in (("imap", "webmail session"), ("pop3", "POP3 poll")):
            each = [hour[way]["seconds"][kind] for way in ("plain", "mount")]
            body.append((f"{name}, median of {len(each[0])}", *(f"{statistics.median(s):.2f} s" for s in each)))
        names = sorted({*plain.ops, *mount.ops}, key=lambda k: -plain.ops.get(k, (0,))[0])
        body += [(k, *(number(side.ops.get(k, (0,))[0]) for side in (plain, mount))) for k in names]
        title = f"### An hour of mail life, {hour['server'].capitalize()}, NFS {hour['version']}, {hosts_of(hour)}"
        told = (
            f"{hour['steps']} steps, seed {hour['seed']}. Sessions that told of different numbers of messages: "
            f"{hour['differ']}."
        )
        out.append(f"{title}\n\n{told}\n\n" + table(("", "plain NFS", "mount"), body))
    return out


# -- the bars


def changed_bars(found):
    for version, server, count, situation in found:
        ways = found[version, server, count, situation]
        plain, mount = ways["plain"], ways["mount"]
        if server != "courier-imap" or count != BIG or situation not in ("own", "own-32k"):
            continue
        received = mount.received(("READ", "READ_PLUS"))
        small = situation == "own-32k"
        ok = mount.readdirs() <= 3 and mount.listings == 0 and (small or received < 300e3)
        yield (
            f"Courier login after this host changed `cur/`{', transfers of 32 KB' if small else ''}, NFS {version}: "
            "READDIR; received",
            f"{number(plain.readdirs())}; {size(plain.received(('READ', 'READ_PLUS')))}",
            f"{number(mount.readdirs())}, of `cur/` or `new/` {number(mount.listings)}; {size(received)}",
            "≤ 3, none of `cur/`" + ("" if small else "; < 0.3 MB without READ"),
            ok,
        )


def unchanged_bars(found):
    for version, server in dict.fromkeys((v, s) for v, s, _, _ in found):
        limit = 0.75 if server.startswith("courier") else 1
        for situation in ("again", "expired"):
            ours = [(k[2], w) for k, w in found.items() if k[:2] == (version, server) and k[3] == situation]
            if not ours:
                continue
            count, ways = max(ours, key=lambda row: row[1]["mount"].calls() / max(1, row[1]["plain"].calls()))
            plain, mount = ways["plain"].calls(), ways["mount"].calls()
            yield (
                f"{NAMES[server]}, NFS {version}, {TITLES[situation]}, worst size ({count:,}): calls",
                number(plain),
                f"{number(mount)} ({mount / max(1, plain):.2f})",
                f"≤ {limit} x plain",
                mount <= limit * plain,
            )


def flat_bars(found):
    for version, server in dict.fromkeys((v, s) for v, s, _, _ in found):
        pairs = {s: [found.get((version, server, n, s), {}).get("mount") for n in (1000, BIG)] for s in FLAT}
        pairs = {s: pair for s, pair in pairs.items() if all(pair)}
        if not pairs:
            continue
        text, ok = [], True
        for situation, (small, big) in pairs.items():
            one, two = (side.calls(CONTENT) for side in (small, big))
            few, many = (side.both(CONTENT) for side in (small, big))
            flat = two <= math.ceil(one * 1.1) + 2 and many <= few * 1.1 + 4096
            ok = ok and flat
            text.append(f"{situation} {arrow(one, two)}, {arrow(few, many, size)}{'' if flat else ' (grows)'}")
        yield (
            f"{NAMES[server]}, NFS {version}: calls and bytes of a login, 1,000 → 100,000 messages, "
            "without READ, WRITE, COMMIT",
            "",
            "; ".join(text),
            "flat: + 10 % and 2 calls, 4 KB",
            ok,
        )


def steady_bars(found):
    for (version, server, count, situation), ways in found.items():
        if situation != "steady":
            continue
        plain, mount = ways["plain"], ways["mount"]
        yield (
            f"{NAMES[server]}, NFS {version}, {count:,} messages, another host changes flags all the time: calls; "
            "seconds",
            f"{number(plain.calls())}; {plain.seconds:.2f}",
            f"{number(mount.calls())}; {mount.seconds:.2f} ({mount.seconds / plain.seconds:.2f})",
            "calls ≤ plain, time ≤ 1.2 x plain",
            mount.calls() <= plain.calls() and mount.seconds <= 1.2 * plain.seconds,
        )


def hour_bars(result):
    for hour in result["hours"]:
        plain, mount = hour_sides(hour)
        yield (
            f"The hour, {hour['server'].capitalize()}, NFS {hour['version']}, {hosts_of(hour)}: READDIR; calls",
            f"{number(plain.readdirs())}; {number(plain.calls())}",
            f"{number(mount.readdirs())} ({mount.readdirs() / max(1, plain.readdirs()):.2f}); "
            f"{number(mount.calls())} ({mount.calls() / plain.calls():.2f})",
            "READDIR ≤ 1/5, calls ≤ 1/2 of plain",
            mount.readdirs() * 5 <= plain.readdirs() and mount.calls() * 2 <= plain.calls(),
        )


def cells(found, result):
    """Each number of a table that should not be worse than plain NFS: (where, plain, mount, is worse)."""
    sides = [(" ".join(map(str, key)), ways["plain"], ways["mount"]) for key, ways in found.items() if alike(ways)]
    sides += [(f"hour {h['version']} {h['server']} {hosts_of(h)}", *hour_sides(h)) for h in result["hours"]]
    for where, plain, mount in sides:
        for word, slack in (("calls", 1), ("readdirs", 1), ("sent", BYTES_SLACK), ("received", BYTES_SLACK)):
            a, b = getattr(plain, word)(), getattr(mount, word)()
            yield f"{where} {word}", a, b, b > a * slack


def worse_bar(found, result):
    all_cells = list(cells(found, result))
    worse = [c for c in all_cells if c[3]]
    return (
        "No cell of any table (calls, READDIR, sent, received; bytes by more than 1 %) worse than plain NFS",
        f"{len(all_cells)} cells",
        f"{len(worse)} worse",
        "0",
        not worse,
    )


def bars(found, result):
    parts = (changed_bars(found), unchanged_bars(found), flat_bars(found), steady_bars(found), hour_bars(result))
    lines = [line for part in parts for line in part]
    return [*lines, worse_bar(found, result)]


def print_all(result, to=sys.stdout):
    found = rows(result)
    lines = bars(found, result)
    reached = sum(line[-1] for line in lines)
    text = [*logins(found), *remains(result), *hours(result)]
    body = [(what, plain, mount, bar, "reached" if ok else "**missed**") for what, plain, mount, bar, ok in lines]
    text.append("### Bars\n\n" + table(("", "plain NFS", "mount", "bar", ""), body))
    worse = sorted((c for c in cells(found, result) if c[3]), key=lambda c: c[1] - c[2])
    if worse:
        text.append(
            f"### The {len(worse)} cells that are worse than plain NFS\n\n"
            + table(("where", "plain", "mount"), [(w, number(a), number(b)) for w, a, b, _ in worse])
        )
    print("\n\n".join(text), file=to)
    print(f"\nbars: {reached} reached, {len(lines) - reached} missed", file=to)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        print_all(json.load(source))

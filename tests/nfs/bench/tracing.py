# SPDX-License-Identifier: GPL-2.0-or-later
"""What each NFS call of a login was for, from the kernel's tracepoints: which program made it, in which system call,
for which request of the FUSE mount, on which file.

Flow: tracer = Tracer(OUT); with tracer.login(box, title) as found: ...; then found.text() has a line for each sort of
call, named(found) a row for each, and the calls in their order are in OUT/trace/TITLE.
A call that the kernel makes later (a write, a close) is attributed to the last step before it.
"""

import collections
import contextlib
import os
import re
import subprocess

TRACING = "/sys/kernel/tracing"
EVENT = re.compile(r"^\s*(.+)-(\d+)\s+\[\d+\] \S+\s+([\d.]+): (\w+): (.*)$")
PROGRAMS = ("maildex*", "fuse_worker", "imapd", "courierpop3d", "imap", "pop3")
SYSCALLS = {
    0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 17: "pread", 18: "pwrite",
    20: "writev", 21: "access", 40: "sendfile", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate",
    77: "ftruncate", 80: "chdir", 82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink",
    90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown", 132: "utime", 137: "statfs", 138: "fstatfs",
    217: "getdents", 221: "fadvise", 235: "utimes", 257: "openat", 258: "mkdirat", 260: "fchownat", 262: "fstatat",
    263: "unlinkat", 264: "renameat", 265: "linkat", 268: "fchmodat", 269: "faccessat", 275: "splice",
    280: "utimensat", 295: "preadv", 296: "pwritev", 316: "renameat2", 332: "statx", 437: "openat2", 439: "faccessat2",
}  # fmt: skip
NFS_EVENTS = (
    "lookup_enter lookup_revalidate_enter getattr_enter revalidate_inode_enter access_enter setattr_enter "
    "readdir_cache_fill atomic_open_enter create_enter remove_enter unlink_enter rename_enter link_enter fsync_enter "
    "initiate_read initiate_write initiate_commit mkdir_enter rmdir_enter writeback_inode_enter"
).split()


def _write(path, text):
    with open(os.path.join(TRACING, path), "w", encoding="ascii") as f:
        f.write(text)


class Tracer:
    def __init__(self, out):
        self.out = os.path.join(out, "trace")
        os.makedirs(self.out, exist_ok=True)
        if not os.path.exists(os.path.join(TRACING, "trace")):
            subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], check=True)
        _write("trace_clock", "mono")
        _write("buffer_size_kb", "16384")
        _write("events/raw_syscalls/sys_enter/filter", " || ".join(f'comm ~ "{p}"' for p in PROGRAMS))

        self.events = [
            "sunrpc/rpc_request",
            "fuse/fuse_request_send",
            "raw_syscalls/sys_enter",
            *(f"nfs/nfs_{event}" for event in NFS_EVENTS),
        ]

    def _enable(self, on):
        for event in self.events:
            _write(f"events/{event}/enable", on)

    @contextlib.contextmanager
    def login(self, box, title):
        found = Found()
        _write("trace", "")
        self._enable("1")
        try:
            yield found
        finally:
            self._enable("0")
        with open(os.path.join(TRACING, "trace"), encoding="utf-8", errors="replace") as f:
            found.calls += _calls(f, _paths(os.path.join("/export", box.path.strip("/"))))
        with open(os.path.join(self.out, title.replace(" ", "_")), "w", encoding="utf-8") as f:
            f.writelines(f"{call['at']:10.4f} {call['pid']:>6} {_text(call)}\n" for call in found.calls)


class Found:
    def __init__(self):
        self.calls = []

    def text(self):
        return [f"{n:5} {text}" for text, n in collections.Counter(map(_text, self.calls)).items()]


# What differs from login to login: names of temporary files and of files that are gone again.
PASSING = (
    (re.compile(r"\d{10}\.M\d+P\d+_(\w+?)(_\d+)?\.\w+"), r"*_\1"),
    (re.compile(r"\d{10}\.M\d+P\d+\S*"), "*"),
    (re.compile(r"#\d+"), "a temporary file"),
)


def named(found):
    """[(count, kind, request, what for)], as one login after another would show it."""
    rows = collections.Counter()
    for call in found.calls:
        step = call["step"]
        for pattern, instead in PASSING:
            step = pattern.sub(instead, step)
        rows[call["kind"], call["fuse"] if call["who"] != "maildexd" else "maildexd", step] += 1
    return [(n, *row) for row, n in rows.items()]


def _text(call):
    fuse = f"[{call['fuse']}] " if call["fuse"] and call["who"].startswith(("maildexfs", "fuse", "kworker")) else ""
    return f"{call['kind']:12} {call['who']:14} {call['syscall']:10} {fuse}{call['step']}"


def _paths(top):
    """{inode: path} of what is not a message, as the server has it."""
    out = {}
    for folder, folders, files in os.walk(top):
        out[os.stat(folder).st_ino] = os.path.relpath(folder, top)
        if os.path.basename(folder) in ("new", "cur"):
            continue
        for name in files:
            path = os.path.join(folder, name)
            out[os.stat(path).st_ino] = os.path.relpath(path, top)
        folders[:] = [f for f in folders if f not in ("new", "cur")] + [f for f in folders if f in ("new", "cur")]
    return out


def _step(event, rest, paths):
    """What the NFS client was about to do."""
    what = event.removeprefix("nfs_").removesuffix("_enter")
    if name := re.search(r"name=[0-9a-f]+:[0-9a-f]+:(\d+)/(.*?)(?: fileid=\d+)?$", rest):
        return f"{what} {paths.get(int(name[1]), '#' + name[1])}/{name[2]}"
    if two := re.search(r"old_name=[0-9a-f:]+:(\d+)/(\S+) new_name=[0-9a-f:]+:(\d+)/(\S+)", rest):
        return f"{what} {paths.get(int(two[1]), '?')}/{two[2]} {paths.get(int(two[3]), '?')}/{two[4]}"
    if inode := re.search(r"fileid=[0-9a-f]+:[0-9a-f]+:(\d+)", rest):
        return f"{what} {paths.get(int(inode[1]), '#' + inode[1])}"
    return what


def _calls(lines, paths):
    step, syscall, fuse, last, first = {}, {}, "", "", None
    for line in lines:
        if not (m := EVENT.match(line)):
            continue
        who, pid, at, event, rest = m[1].strip(), m[2], float(m[3]), m[4], m[5]
        first = at if first is None else first
        if event == "sys_enter":
            if name := SYSCALLS.get(int(re.match(r"NR (\d+)", rest)[1])):
                syscall[pid], step[pid] = name, ""
        elif event == "fuse_request_send":
            if "FORGET" not in rest and "INTERRUPT" not in rest:
                fuse = re.search(r"\(FUSE_(\w+)\)", rest)[1]
        elif event == "rpc_request":
            kind = rest.split()[2]
            yield {
                "at": at - first,
                "pid": pid,
                "who": re.sub(r"kworker.*", "kworker", who),
                "kind": kind,
                "syscall": syscall.get(pid, ""),
                "fuse": fuse,
                "step": step.get(pid) or ("after " + last if last else ""),
            }
        else:
            step[pid] = last = _step(event, rest, paths)

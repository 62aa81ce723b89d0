# SPDX-License-Identifier: GPL-2.0-or-later
"""The mailboxes of the benchmark: their names, sizes and places below the export, and how they are made.

Flow: fill(TOP) once, where the disk is made; name(i) tells the i-th message's name without a listing.
Shapes: {way}/{version}/{server}-{size}/u/Maildir for single logins; life/{server}-{way}/uNN/Maildir for the hour.
"""

import os

VMAIL = 5000
DISK_BYTES = 24 << 30
WAYS = ("plain", "mount")
VERSIONS = ("3", "4.2")
SERVERS = ("courier-imap", "courier-pop3", "dovecot-imap", "dovecot-pop3")
SIZES = (1000, 10000, 100000)
LIFE_SERVERS = ("courier", "dovecot")
# 20 mailboxes of the hour: many small ones, some large ones.
LIFE = (300, 400, 500, 600, 800, 1000, 1000, 1500, 2000, 2000)
LIFE += (2500, 3000, 4000, 5000, 6000, 8000, 10000, 15000, 25000, 50000)
POOL = max(SIZES)
BORN = 1700000000


def size(i):
    return (900, 1400, 2100, 3300)[i * 7 % 4]


def base(i):
    """The i-th message, oldest first."""
    return f"{BORN + i * 37}.M{i * 7919 % 1000000:06}P{1000 + i % 30000}.mail-in{i % 3 + 1},S={size(i)},W={size(i)}"


def name(i):
    """As it stands in cur/ at first."""
    return base(i) + ":2,S"


def message(i):
    head = (
        f"Return-Path: <sender{i}@example.org>\r\nFrom: Sender {i} <sender{i}@example.org>\r\n"
        f"To: user@example.net\r\nSubject: message {i}\r\nMessage-ID: <{i}@example.org>\r\n"
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
    ).encode()
    return (head + (b"x" * 70 + b"\r\n") * 50)[: size(i) - 2] + b"\r\n"


# Courier's POP3 server reads every message of a mailbox that it sees for the first time, and writes their sizes down.
# From this size on that takes too long in an emulated machine, so what it would have written is there from the start;
# take it away to measure a first login.
SIZES_KNOWN = 10000
SIZE_LIST = "courierpop3dsizelist"


def write_sizes(path, count):
    sizes = [size(i) + message(i).count(b"\n") for i in range(4)]
    with open(path, "x", encoding="ascii") as f:
        f.write(f"/3 {count + 1} {BORN}\n")
        f.writelines(f"{name(i)} {sizes[i % 4]} {i + 1}:{BORN}:0\n" for i in range(count))
        os.fchown(f.fileno(), VMAIL, VMAIL)


def cell(server, count):
    return f"{server}-{count}"


def life(number):
    return f"u{number:02}"


def polled(number):
    """Is the hour's mailbox one that is polled by POP3?"""
    return number % 3 == 1


def maildir(path, count, pool):
    """With an Archive beside it, empty."""
    for top in (path, os.path.join(path, ".Archive")):
        for sub in ("", "new", "cur", "tmp"):
            os.makedirs(os.path.join(top, sub), mode=0o700, exist_ok=True)
            os.chown(os.path.join(top, sub), VMAIL, VMAIL)
    to = os.open(os.path.join(path, "cur"), os.O_RDONLY)
    for i in range(count):
        os.link(base(i), name(i), src_dir_fd=pool, dst_dir_fd=to)
    os.close(to)


def home(path, count, pool):
    os.makedirs(path, mode=0o755)
    os.chown(path, VMAIL, VMAIL)
    maildir(os.path.join(path, "Maildir"), count, pool)


def fill(top):
    os.mkdir(os.path.join(top, "pool"), mode=0o755)
    pool = os.open(os.path.join(top, "pool"), os.O_RDONLY)
    for i in range(POOL):
        with open(os.open(base(i), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=pool), "wb") as f:
            f.write(message(i))
            os.fchown(f.fileno(), VMAIL, VMAIL)
    for way in WAYS:
        for version in VERSIONS:
            for server in SERVERS:
                for count in SIZES:
                    path = os.path.join(top, way, "v" + version, cell(server, count), "u")
                    home(path, count, pool)
                    if server == "courier-pop3" and count >= SIZES_KNOWN:
                        write_sizes(os.path.join(path, "Maildir", SIZE_LIST), count)
        for server in LIFE_SERVERS:
            for number, count in enumerate(LIFE):
                path = os.path.join(top, "life", f"{server}-{way}", life(number))
                home(path, count, pool)
                if server == "courier" and polled(number):
                    write_sizes(os.path.join(path, "Maildir", SIZE_LIST), count)
    os.close(pool)

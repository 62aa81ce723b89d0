# SPDX-License-Identifier: GPL-2.0-or-later
"""A mailbox's owner, and one connection to a server of a text protocol: IMAP, POP3, LMTP."""

import dataclasses
import os
import re
import select
import time

from daemon import WAIT_S

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LITERAL = re.compile(rb"\{(\d+)\+?\}\r\n$")
SAID_LINES = 60  # of what a failed wait shows


@dataclasses.dataclass(frozen=True)
class Account:
    name: str
    uid: int  # and gid
    home: str  # the Maildir is home/Maildir


class Broken(AssertionError):
    """The server was silent for too long, or hung up; with what was said before."""


class Talk:
    """Over a socket, or over two pipes. What is waited for comes within WAIT_S, or Broken is raised."""

    def __init__(self, source, sink=None, ended=None, name="?"):
        """source, sink: with fileno() and close(); one socket: as source. ended: called when it is closed."""
        self.source, self.sink, self.ended, self.name = source, sink or source, ended, name
        self.held, self.said, self.tag, self.closed = b"", [], 0, False
        os.set_blocking(self.source.fileno(), False)
        os.set_blocking(self.sink.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Hangs up, whatever state it is in."""
        if self.closed:
            return
        self.closed = True
        if self.sink is not self.source:
            self.sink.close()
        self.source.close()
        if self.ended:
            self.ended()

    def _broken(self, what):
        said = b"".join(self.said[-SAID_LINES:]).decode("utf-8", "backslashreplace")
        return Broken(f"{self.name}: {what}. Said so far:\n{said}")

    def _note(self, mark, data):
        self.said.append(mark + data[:300] + (b"...\n" if len(data) > 300 else b""))

    def _wait(self, fd, what, until):
        poll = select.poll()
        poll.register(fd, what)
        if not poll.poll(max(0, until - time.monotonic()) * 1000):
            raise self._broken(f"nothing for {WAIT_S} s")

    # -- bytes and lines

    def send(self, data):
        self._note(b"> ", data)
        until, data = time.monotonic() + WAIT_S, memoryview(data)
        while data:
            self._wait(self.sink, select.POLLOUT, until)
            try:
                data = data[os.write(self.sink.fileno(), data) :]
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                raise self._broken("the connection ended") from None

    def _more(self, until):
        self._wait(self.source, select.POLLIN, until)
        try:
            data = os.read(self.source.fileno(), 1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._broken("the connection ended")
        self.held += data

    def line(self):
        """The next line, with its end."""
        until, start = time.monotonic() + WAIT_S, 0
        while (at := self.held.find(b"\n", start)) < 0:
            start = len(self.held)
            self._more(until)
        line, self.held = self.held[: at + 1], self.held[at + 1 :]
        self._note(b"< ", line)
        return line

    def exactly(self, size):
        until, pieces = time.monotonic() + WAIT_S, []
        while size:
            if not self.held:
                self._more(until)
            piece, self.held = self.held[:size], self.held[size:]
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    # -- IMAP

    def answer(self):
        """A line of IMAP, with the literals in it."""
        data = line = self.line()
        while literal := LITERAL.search(line):
            data += self.exactly(int(literal[1]))
            line = self.line()
            data += line
        return data

    def imap_send(self, command, *literals):
        """Sends a command with a tag of its own, each "{}" in it a literal; returns what came until it was sent. A
        server that refuses a literal ends that with the tagged answer."""
        self.tag += 1
        data = command if isinstance(command, bytes) else command.encode()
        pieces, out = (b"a%d " % self.tag + data).split(b"{}"), []
        assert len(pieces) == len(literals) + 1, command
        for piece, literal in zip(pieces, literals):
            self.send(piece + b"{%d}\r\n" % len(literal))
            while not (line := self.answer()).startswith(b"+"):
                out.append(line)
                if line.startswith(b"a%d " % self.tag):
                    return out
            self.send(literal)
        self.send(pieces[-1] + b"\r\n")
        return out

    def imap_rest(self):
        """All lines up to the tagged answer of the last command, that included."""
        out = []
        while not out or not out[-1].startswith(b"a%d " % self.tag):
            out.append(self.answer())
        return out

    def imap(self, command, *literals):
        """A whole command: its lines as they came, literals in them, the last one the tagged answer."""
        out = self.imap_send(command, *literals)
        return out if out and out[-1].startswith(b"a%d " % self.tag) else out + self.imap_rest()

    def idle(self):
        """IDLE; returns what came before the "+"."""
        out = self.imap_send("IDLE")
        while not (line := self.answer()).startswith(b"+"):
            out.append(line)
            if line.startswith(b"a%d " % self.tag):
                raise self._broken("IDLE was refused")
        return out

    def done(self):
        """Ends IDLE; returns what came since."""
        self.send(b"DONE\r\n")
        return self.imap_rest()

    # -- POP3

    def pop3(self, command, multiline=False):
        """The lines of the answer as they came; if multiline, and it is not -ERR, up to the "."."""
        self.send(command.encode() + b"\r\n")
        out = [self.line()]
        while multiline and out[0].startswith(b"+OK") and (len(out) == 1 or out[-1] != b".\r\n"):
            out.append(self.line())
        return out

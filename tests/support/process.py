# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls that another process makes, and that may wait."""

import fcntl
import os
import pickle
import signal
import socket
import traceback
from errno import EINTR

from daemon import WAIT_S


class Process:
    """Another process that does what it is told, call by call: process(os.open, path, flags). It is who we are when it is
    made."""

    def __init__(self):
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.ours.close()
                self._serve(theirs)
            except BaseException:  # pylint: disable=broad-except
                traceback.print_exc()
            finally:
                os._exit(1)  # never out of here: what our parent takes down at its end is not ours
        theirs.close()

    @staticmethod
    def _serve(sock):
        signal.signal(signal.SIGUSR1, Process._interrupted)
        while data := sock.recv(65536):
            what, args = pickle.loads(data)
            try:
                answer = ("value", what(*args))
            except OSError as e:
                answer = ("errno", (e.errno, os.strerror(e.errno), e.filename))
            sock.send(pickle.dumps(answer))
        os._exit(0)

    @staticmethod
    def _interrupted(*_):
        raise InterruptedError(EINTR, "interrupted")

    def begin(self, what, *args):
        """A call that may wait."""
        self.ours.send(pickle.dumps((what, args)))

    def end(self):
        self.ours.settimeout(WAIT_S)
        kind, value = pickle.loads(self.ours.recv(65536))
        if kind == "errno":
            raise OSError(*value)
        return value

    def __call__(self, what, *args):
        self.begin(what, *args)
        return self.end()

    def answers(self, seconds):
        """Does the call under way end within so long?"""
        self.ours.settimeout(seconds)
        try:
            return bool(self.ours.recv(65536, socket.MSG_PEEK))
        except TimeoutError:
            return False

    def had(self, call, fd):
        try:
            self(call, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def stop(self):
        self.ours.close()
        self.kill()

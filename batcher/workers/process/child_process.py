"""A child as its parent has it: the process, the connection, the memory, and how it ends. Linux."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from threading import Lock

from batcher.workers.shared_memory.slots import Slot

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from batcher.workers.process.child import main; "
    "main({fd}, {slots}, {parent}, {rope})"
)
"""Not `-m`: the package may be found by this process's own path alone."""


class ChildProcess:
    """A fresh interpreter that runs `child.main`. All methods but `kill`: the thread that made it.

    It leads a group of processes, those that its model starts, which end with it; a terminal's
    signals do not reach them.

    Attributes:
        connection: to it.
        slots: the memory that is shared with it.
        ended_fd: a descriptor that can be read from when it has ended.
    """

    def __init__(self, slots: int) -> None:
        """Start a child that shares `slots` slots.

        Raises:
            OSError, MemoryError: something cannot be had.
        """
        self._over = False  # whether its number may be another's
        self._ending = Lock()
        with ExitStack() as opened:
            ours, its = Pipe()
            opened.callback(ours.close)
            self.connection = ours
            rope, end = os.pipe()
            opened.callback(os.close, end)
            with its, open(rope, "rb", buffering=0):
                fds: list[int] = []
                for _ in range(slots):
                    fds.append(os.memfd_create("batcher-slot"))
                    opened.callback(os.close, fds[-1])
                self.slots = [Slot(fd) for fd in fds]
                self._process = _spawn(its.fileno(), fds, rope)
            opened.callback(self._reap)
            self.ended_fd = os.pidfd_open(self._process.pid)
            opened.callback(os.close, self.ended_fd)
            self._opened = opened.pop_all()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it and what it started, unless it has ended.

        What it said can be read, and nothing follows. Any thread.
        """
        with self._ending:
            if not self._over:
                with suppress(
                    ProcessLookupError, PermissionError
                ):  # some may have become somebody else's
                    os.killpg(self._process.pid, signal.SIGKILL)
                _shut(
                    self.connection.fileno()
                )  # a process that left the group may hold the other end

    def end(self) -> str:
        """Kill it unless it has ended, and what it started, and return in words how it ended.

        What it said last can be read.
        """
        self._reap()
        return how_ended(self._process.returncode)

    def close(self) -> None:
        """Kill it unless it has ended, and let go of all that it took."""
        self._opened.close()

    def _reap(self) -> None:
        self.kill()
        with self._ending:
            self._over = True
        self._process.wait()


def _spawn(fd: int, slots: Sequence[int], rope: int) -> subprocess.Popen[bytes]:
    path = [str(entry) for entry in sys.path]
    program = _PROGRAM.format(path=path, fd=fd, slots=list(slots), parent=os.getpid(), rope=rope)
    command, files = [sys.executable, "-c", program], (fd, *slots, rope)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=files, start_new_session=True
    )


def _shut(fd: int) -> None:
    """Have whoever waits at the socket `fd` go on.

    That takes no descriptor, of which there may be no more.
    """
    line = socket.socket(fileno=fd)
    try:
        line.shutdown(socket.SHUT_RDWR)
    finally:
        line.detach()


def group_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that are sent to all of a service, as by systemd, which the parent answers and the child does not."""
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def how_ended(status: int) -> str:
    """Return in words how a process with this `returncode` ended."""
    if status >= 0:
        return f"the child exited with status {status}"
    known = {number.value: number.name for number in signal.Signals}
    return f"the child was killed by signal {-status} ({known.get(-status, 'of real time')})"

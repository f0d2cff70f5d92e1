"""A child as its parent has it: the process, the connection, the memory, and how it ends. Linux.

There are two kinds of children: those that run a model (`process/child.py`), and the one that runs
codecs (`codec_process/child.py`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from threading import Lock

from batcher.workers.shared_memory.slots import Slot

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from {module} import main; "
    "main({fd}, {slots}, {parent}, {lifeline})"
)
"""Not `-m`: the package may be found by this process's own path alone."""


MODEL = "batcher.workers.process.child"
"""The module whose `main` runs a model."""


def _working_folder() -> str:
    """Return the working directory, empty where it is gone. Any thread."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


_START_FOLDER = _working_folder()


class ChildProcess:
    """A fresh interpreter that runs `main` of a module; only the thread that made this may reap it.

    A child leads a group of processes, those that its model starts; the group ends with the child,
    and a terminal's signals do not reach the group.

    Attributes:
        connection: connection to the child.
        slots: memory that is shared with the child.
        ended_fd: descriptor that can be read from when the child has ended.
    """

    def __init__(self, slots: int, environment: Mapping[str, str], module: str = MODEL) -> None:
        """Start a child that runs `main` of `module`, and shares `slots` slots.

        `environment` holds variables that the child has where this process has none.
        Raises OSError or MemoryError where something cannot be had. Child thread.
        """
        self._is_reaped = False
        self._kill_lock = Lock()
        with ExitStack() as opened:
            ours, its = Pipe()
            opened.callback(ours.close)
            self.connection = ours
            lifeline, other_end = os.pipe()
            opened.callback(os.close, other_end)
            with its, open(lifeline, "rb", buffering=0):
                fds: list[int] = []
                for _ in range(slots):
                    fds.append(os.memfd_create("batcher-slot"))
                    opened.callback(os.close, fds[-1])
                self.slots = [Slot(fd) for fd in fds]
                self._process = _spawn(module, its.fileno(), fds, lifeline, environment)
            opened.callback(self._reap)
            self.ended_fd = os.pidfd_open(self._process.pid)
            opened.callback(os.close, self.ended_fd)
            self._opened = opened.pop_all()

    @property
    def pid(self) -> int:
        """The child's process id. Any thread."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the child and what it started, unless it has ended.

        What the child said before can still be read, and nothing follows. Any thread.
        """
        with self._kill_lock:
            # A process id that was waited for may belong to another process by now.
            if not self._is_reaped:
                # Of a group that has ended, some ids may have become somebody else's.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                # A process that left the group may hold the child's end of the connection.
                _shut(self.connection.fileno())

    def end(self) -> str:
        """Kill the child unless it has ended, and what it started; return how it ended.

        What the child said last can still be read. Child thread.
        """
        self._reap()
        return how_ended(self._process.returncode)

    def close(self) -> None:
        """Kill the child unless it has ended; let go of all that it took. Child thread."""
        self._opened.close()

    def _reap(self) -> None:
        """Kill the child and wait for its end. Child thread."""
        self.kill()
        with self._kill_lock:
            self._is_reaped = True
        self._process.wait()


def _spawn(
    module: str, fd: int, slots: Sequence[int], lifeline: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a child that inherits the descriptors, and no other. Child thread."""
    program = _PROGRAM.format(
        module=module,
        path=[str(entry) for entry in sys.path],
        fd=fd,
        slots=list(slots),
        parent=os.getpid(),
        lifeline=lifeline,
    )
    command, fds = [sys.executable, "-c", program], (fd, *slots, lifeline)
    # Where this program began: a model on a thread may have changed the folder since.
    folder = _START_FOLDER if os.path.isdir(_START_FOLDER) else None
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        start_new_session=True,
        cwd=folder,
        env={**environment, **os.environ},
    )


def _shut(fd: int) -> None:
    """End the wait of everybody who reads from the socket `fd`.

    That takes no new descriptor, of which there may be no more. Any thread.
    """
    connection = socket.socket(fileno=fd)
    try:
        connection.shutdown(socket.SHUT_RDWR)
    finally:
        connection.detach()


def group_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that a supervisor like systemd sends to every process of a service.

    The parent answers them, and the child does not. Any thread.
    """
    return signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def how_ended(status: int) -> str:
    """Return in words how a process with this `returncode` ended. Any thread."""
    if status >= 0:
        return f"the child exited with status {status}"
    known = {number.value: number.name for number in signal.Signals}
    return f"the child was killed by signal {-status} ({known.get(-status, 'of real time')})"

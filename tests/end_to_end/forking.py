"""Servers as forks of one process that has imported PyTorch already, and the door to that process.

An import of PyTorch and of what reads exported programs takes four seconds of a core, a fork of a
process that has both takes milliseconds. The fork runs the same script by the same arguments as a
fresh interpreter would. What the environment tells an interpreter or a library while it starts is
not read again, so a start with such variables is for a fresh interpreter.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 1 << 17
"""Bytes of a message: the environment and the arguments of a start."""

READ_AT_START = ("LD_", "MALLOC_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON")
"""Variables that the interpreter or a library reads once."""


class Fork:
    """A server that runs as a fork; the part of `subprocess.Popen` that tests use."""

    def __init__(self, forks: Forks, pid: int, output: int) -> None:
        self._forks = forks
        self.pid = pid
        self.stdout = os.fdopen(output, "rb", buffering=0)

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while the process runs."""
        return self._forks.status(self.pid, 0)

    def wait(self, timeout: float) -> int:
        """Return the exit status, which must come within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (status := self._forks.status(self.pid, deadline - time.monotonic())) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, seen from a test."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._statuses: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], errors: int
    ) -> Fork:
        """Run a script of Python in `folder` with standard error in `errors`, a descriptor."""
        message = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        reading, writing = os.pipe()
        socket.send_fds(self._socket, [json.dumps(message).encode()], [writing, errors])
        os.close(writing)
        while "pid" not in (answer := self._receive()):
            self._statuses[answer["ended"]] = answer["status"]
        return Fork(self, answer["pid"], reading)

    def _receive(self) -> dict[str, int]:
        message: dict[str, int] = json.loads(self._socket.recv(MOST_BYTES))
        return message

    def status(self, pid: int, seconds: float) -> int | None:
        """Return the exit status of a fork; None if `seconds` pass before it ends."""
        while (
            pid not in self._statuses and select.select([self._socket], [], [], max(0, seconds))[0]
        ):
            answer = self._receive()
            self._statuses[answer["ended"]] = answer["status"]
        return self._statuses.get(pid)


@cache
def forks() -> Forks:
    """Return the process that forks for the tests of this process; the first call starts it."""
    return Forks()


def can_fork(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a fork runs a script or a module as a fresh interpreter would."""
    changed = {name for name, value in environment.items() if os.environ.get(name) != value}
    late = not any(name.startswith(READ_AT_START) for name in changed - {"PYTHONPATH"})
    return late and (arguments[0] == "-m" or arguments[0].endswith(".py"))


def tell_ends(control: socket.socket) -> None:
    """Tell the exit status of each fork that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        ended = {"ended": pid, "status": os.waitstatus_to_exitcode(status)}
        control.send(json.dumps(ended).encode())


def fork_when_asked(control: socket.socket) -> dict[str, Any]:
    """Fork for each message that comes; return in each fork what the fork is to run.

    The process ends with its tests, when the other end of `control` is closed.
    """
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake.fileno())
    while True:
        if woken in select.select([control, woken], [], [])[0]:
            woken.recv(MOST_BYTES)
            tell_ends(control)
            continue
        text, descriptors, _, _ = socket.recv_fds(control, MOST_BYTES, 2)
        if not text:
            os._exit(0)
        if pid := os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(json.dumps({"pid": pid}).encode())
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for mine in (control, woken, wake):
            mine.close()
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        asked: dict[str, Any] = json.loads(text)
        return asked


def become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run a script or `-m module` as a fresh interpreter with `arguments` would."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # found again, by the environment
    by_name = arguments[0] == "-m"
    first = folder if by_name else str(Path(folder, arguments[0]).parent)
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = arguments[by_name:]
    if by_name:
        # Of a module that is there already runpy would warn; of a package it runs `__main__`.
        if not hasattr(sys.modules.get(arguments[1]), "__path__"):
            sys.modules.pop(arguments[1], None)
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import torch._export.serde.serialize  # noqa: F401

    import batcher.app.cli  # noqa: F401

    become(**fork_when_asked(socket.socket(fileno=int(sys.argv[1]))))

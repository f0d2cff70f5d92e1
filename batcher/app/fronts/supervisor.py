"""The process that starts all others of a server with `fronts`, and starts again what ends.

    this process ──► the engine            models, queue, metrics; it gets SIGTERM and SIGHUP
        └─────────► front 0, front 1, …    connections

It does nothing else. It has no loop, no thread and no model, so a copy of it is made in a
millisecond and is as good as a program that was just started: the engine and the fronts are such
copies. It opens the ports before, so that a front that was killed loses its connections, and no
client finds the port closed.

| what ends | what happens |
|---|---|
| a front | another takes its place at once, or after up to MAX_PAUSE_S where it ends all the time |
| the engine, before it was ever ready | the server ends with the engine's status |
| the engine later | likewise another; what waited for it is answered with 503 by the fronts |
| the engine after SIGTERM or SIGINT, from anybody | the fronts end, then the server likewise |
| this process, killed | engine and fronts see the lifeline end: the engine drains, and all end |
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import select
from time import monotonic
from typing import NoReturn

from batcher.app.fronts.places import Places, places_of
from batcher.app.log_lines import json_line
from batcher.config.settings import ServerSettings
from batcher.core.error_text import cut
from batcher.core.systemd_sockets import SYSTEMD_DESCRIPTORS
from batcher.errors import ConfigError
from batcher.frontends.listening.sockets import close_listeners, open_sockets, tcp_sockets

Process = Callable[[int], int]
"""Runs the process of that number to its end, and returns its exit status."""

LAST_WAIT_S = 2.0
"""Seconds that fronts have to end once the engine has ended: they have no connection any more."""

STEADY_S = 5.0
"""Seconds after which a process that ends is started again at once: it has worked before."""

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
"""Pause before a process is started again that has not lived for STEADY_S; it doubles each time."""

_HEARD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
ENGINE = -1
"""The number of the engine among the processes; fronts have theirs from 0."""

STANDARD_ERROR = 2

MAX_LINE_CHARS = 600
"""Characters of a line, of at most 6 bytes each: a pipe that takes any bytes takes 4096 at once."""


def open_places(settings: ServerSettings, base: Path) -> Places:
    """Open the ports of all fronts; raises as `open_sockets`. Main thread."""
    if not sys.platform.startswith("linux"):
        place = settings.origin("fronts")
        raise ConfigError(f"{place}: fronts: expected 0 on {sys.platform}; only Linux has fronts")
    first = open_sockets(settings, base)
    # The kernel spreads connections over sockets of TCP that were opened for one port alone.
    shared = bool(SYSTEMD_DESCRIPTORS) or first[0].family == socket.AF_UNIX
    if shared:
        listeners = [first] * settings.fronts
    else:
        # The first ones have found out whether another program has the port.
        port = first[0].getsockname()[1]
        close_listeners(first)
        listeners = [tcp_sockets(settings.host, port, True) for _ in range(settings.fronts)]
    return places_of(listeners, shared)


class Supervisor:
    """Starts the processes and waits for them. Main thread of a process without others."""

    def __init__(self, places: Places, process: Process, say: Callable[[str], None]) -> None:
        """Start copies of this process that run `process`; `say` logs a line."""
        self._places, self._process, self._say = places, process, say
        self._pids: dict[int, int] = {}  # from a process to its number
        self._begun: dict[int, float] = {}  # from a number to the time of its last start
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}  # from a number to the time of its next start
        self._stopping = False
        self._before: set[int] = set()

    def run(self) -> int:
        """Run until the engine has ended for good; return the exit status."""
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        for number in (ENGINE, *range(len(self._places.listeners))):
            self._start(number)
        while True:
            self._start_due()
            number = self._wait(self._next_wait())
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._pass_on(number)
            status = self._reap()
            if status is None and self._stopping and ENGINE not in self._pids.values():
                status = 0  # it was about to be started again
            if status is not None:
                self._end_fronts()
                return status

    def _wait(self, seconds: float | None) -> int:
        """Return the number of the next signal; 0 if none comes within `seconds`."""
        if seconds is None:
            return signal.sigwait(_HEARD)
        found = signal.sigtimedwait(_HEARD, seconds)
        return 0 if found is None else found.si_signo

    def _next_wait(self) -> float | None:
        return max(0.0, min(self._due.values()) - monotonic()) if self._due else None

    def _start_due(self) -> None:
        for number in [each for each, due in self._due.items() if due <= monotonic()]:
            del self._due[number]
            self._start(number)

    def _start(self, number: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # its reader is gone
                stream.flush()  # else the copy writes it, too
        try:
            pid = os.fork()
        except OSError as err:
            self._say(f"{_called(number)} cannot be started now, and is tried again: {err}")
            self._due[number] = monotonic() + MAX_PAUSE_S
            return
        if not pid:
            self._be(number)
        self._pids[pid] = number
        self._begun[number] = monotonic()

    def _be(self, number: int) -> NoReturn:
        """Be the process of that number, in a copy of this one."""
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            self._places.only(None if number == ENGINE else number)
            status = self._process(number)
        except BaseException:  # nothing of the copied stack may go on
            traceback.print_exc()
        finally:
            os._exit(status)

    def _pass_on(self, signal_number: int) -> None:
        if signal_number != signal.SIGHUP:
            self._stopping = True
            self._due.clear()
        for pid, number in self._pids.items():
            if number == ENGINE:
                os.kill(pid, signal_number)

    def _reap(self) -> int | None:
        """Wait for what has ended; return the exit status of the server if it is to end."""
        ended = None
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                number = self._pids.pop(found[0], None)
                if number is None:
                    continue
                code = os.waitstatus_to_exitcode(found[1])
                status = self._ended(number, code)
                ended = status if status is not None else ended
        return ended

    def _ended(self, number: int, code: int) -> int | None:
        """Note that a process has ended with `code`; return the server's status if it is over."""
        # An engine that ends with 0 was told to, and has had the fronts close their ports.
        is_over = self._stopping or code == 0 or not self._places.ready[0]
        if number == ENGINE and is_over:
            return code if code >= 0 else 128 - code
        if self._stopping:
            return None
        self._say(f"{_called(number)} has ended with {_how(code)}; it is started again")
        lived = monotonic() - self._begun[number]
        pause = 0.0 if lived >= STEADY_S else self._pauses.get(number, 0.0)
        self._pauses[number] = min(MAX_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause))
        self._due[number] = monotonic() + pause
        return None

    def _end_fronts(self) -> None:
        """End every front; those that take longer than LAST_WAIT_S are killed."""
        os.close(self._places.lifeline)
        until = monotonic() + LAST_WAIT_S
        while self._pids and monotonic() < until:
            self._wait(max(0.0, until - monotonic()))
            with suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    self._pids.pop(found[0], None)
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _called(number: int) -> str:
    return "the engine" if number == ENGINE else f"front {number}"


def _how(code: int) -> str:
    if code >= 0:
        return f"status {code}"
    known = -code in {*signal.Signals}
    return signal.Signals(-code).name if known else f"signal {-code}"  # real-time ones have no name


def line_writer(log_format: str) -> Callable[[str], None]:
    """Return what writes a warning to the log, in the form of `log_format`.

    A line that nobody takes now is dropped: it must not hold up the next start of a process. For
    the same reason no line is longer than what a pipe takes at once.
    """

    def say(text: str) -> None:
        source = "batcher.app.fronts"
        short = cut(text, MAX_LINE_CHARS)
        line = json_line("warn", source, short) if log_format == "json" else f"[{source}] {short}\n"
        # Its reader may be gone.
        with suppress(OSError):
            if select([], [STANDARD_ERROR], [], 0)[1]:
                os.write(STANDARD_ERROR, line.encode())

    return say

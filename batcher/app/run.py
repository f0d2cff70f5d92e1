"""Running the whole server in this process, as fast as it can be.

Reactor, process-wide settings, listening, exit.

The reactor is Twisted's asyncio reactor on a uvloop loop; connections are served by uvloop's own
transports, which are only used when the loop itself listens. Only this module and `cli.py` set
anything that is process-wide.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import installReactor
from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from batcher.app.heap_trim import HeapTrim, heap_trimmer
from batcher.app.reloading import Read, reason_of, reload_on_hangup
from batcher.batching import scheduler
from batcher.config.settings import ServerSettings
from batcher.frontends.web.listening.asyncio_ports import LoopPorts
from batcher.frontends.web.listening.sockets import Listen, Listening, Tls, tls_context

if TYPE_CHECKING:
    from batcher.app.service import BatcherService
    from batcher.frontends.web.front import Front

_log = Logger()

OPERATORS_INTERVAL_MS = 0.2
CALLS_INTERVAL_MS = 5.0
"""How long a thread may keep the interpreter lock that another wants: while a model of many
operators is served, each of which takes the lock; and when every model is one native call
(`benchmarks/gil.py`).
"""

YOUNG_OBJECTS = 5000
"""Objects between two looks for cycles: with Python's 700 a request costs half a microsecond more,
with more no less.
"""

FLUSH_SECONDS = 0.25
"""How long a line of the access log may wait in memory: one system call a line would cost more than
the line.
"""


class AccessLog:
    """Lines to standard output, gathered and flushed a few times a second. Reactor thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush by timers of `loop`."""
        self._loop = loop
        self._lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Write one line soon."""
        if not self._lines:
            self._loop.call_later(FLUSH_SECONDS, self.flush)
        self._lines.append(line + b"\n")

    def flush(self) -> None:
        """Write what is there."""
        lines, self._lines = self._lines, []
        if lines:
            with suppress(BrokenPipeError):
                sys.stdout.buffer.write(b"".join(lines))
                sys.stdout.buffer.flush()


class ServerReactor(AsyncioSelectorReactor):
    """Twisted's reactor, but a second SIGTERM or SIGINT, or one more of either, changes nothing."""

    def stop(self) -> None:
        """Begin to stop, unless it has begun."""
        with suppress(ReactorNotRunning):
            super().stop()  # type: ignore[no-untyped-call]  # Twisted's has no annotations


def run_server(
    settings: ServerSettings,
    base: Path,
    progress: Callable[[str, str], None],
    ready: Callable[[str], None],
    failed: Callable[[str], None],
    read: Read,
) -> int:
    """Serve until a signal says otherwise, and return the exit status.

    SIGHUP has the settings read and applied anew.

    Args:
        settings: the whole configuration.
        base: the folder that relative paths in it start from.
        progress: told a model's title and what is being done with it.
        ready: told the address once every model is ready.
        failed: told the reason if the server cannot start.
        read: reads the settings from the sources that `settings` came from.
    """
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = ServerReactor(loop)
    # not the system's clock: set back, timers would not ring, set forward, all at once
    reactor.seconds = monotonic
    installReactor(reactor)
    _begin_logging()
    _set_process(settings)
    reload_on_hangup(reactor, lambda: _reload(service, read))
    if scheduler.__file__.endswith(".py"):
        _log.warn(
            "hint: the hot path is not compiled, so it is slower: install again where there is a C "
            "compiler"
        )
    access_log = AccessLog(loop)
    service = _service(settings, base, loop, reactor, progress, access_log)
    _give_memory_back(reactor, service)
    status = _run(reactor, service, ready, failed)
    access_log.flush()
    return status


def _service(
    settings: ServerSettings,
    base: Path,
    loop: asyncio.AbstractEventLoop,
    reactor: AsyncioSelectorReactor,
    progress: Callable[[str, str], None],
    access_log: AccessLog,
) -> BatcherService:
    from batcher.app.service import (
        BatcherService,
    )  # imports Klein, which needs the reactor to be chosen

    def call_from_thread(function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(function, *arguments)

    return BatcherService(
        settings,
        base,
        reactor,
        call_from_thread=call_from_thread,
        call_soon=loop.call_soon,
        listen=_loop_listen(loop),
        progress=progress,
        write_access_line=access_log.write,
    )


def _run(
    reactor: AsyncioSelectorReactor,
    service: BatcherService,
    ready: Callable[[str], None],
    failed: Callable[[str], None],
) -> int:
    """Run `service` until a signal ends it, and return the exit status: 1 if it could not start."""
    status = 0

    def started(_: None) -> None:
        _set_switch_interval(service)
        gc.collect()
        gc.set_threshold(YOUNG_OBJECTS, 20, 50)
        if service.settings.model_control == "none":
            gc.freeze()  # what was made at start lives until a reload: do not look at it before
        ready(service.address)

    def not_started(failure: Failure) -> None:
        nonlocal status
        if service.state.value == "starting":
            status = 1
            failed(reason_of(failure))
        if reactor.running:
            reactor.stop()

    service.ready.addCallbacks(started, not_started)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return status


def _reload(service: BatcherService, read: Read) -> None:
    gc.unfreeze()  # or a model that was loaded at start could not be let go of
    reloaded = service.reload(read)
    reloaded.addCallbacks(
        lambda _: _set_switch_interval(service), lambda _: None
    )  # the log has the reasons


def _give_memory_back(reactor: AsyncioSelectorReactor, service: BatcherService) -> None:
    if trim := heap_trimmer():
        trimming = HeapTrim(
            service.front.buffers, reactor, partial(reactor.callInThread, trim)
        ).start()
        trimming.addErrback(
            lambda failure: _log.failure("memory is not given back any more", failure)
        )


def _set_switch_interval(service: BatcherService) -> None:
    one_calls = all(served.one_call for served in service.server)
    default = CALLS_INTERVAL_MS if one_calls else OPERATORS_INTERVAL_MS
    sys.setswitchinterval((service.settings.switch_interval_ms or default) / 1e3)


def leave(status: int) -> None:
    """End the process at once with `status`.

    A model that hangs in its thread must not delay that.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _loop_listen(loop: asyncio.AbstractEventLoop) -> Listen:
    def listen(
        front: Front, listeners: list[socket.socket], tls: Tls | None
    ) -> Deferred[Listening]:
        ports = LoopPorts(loop, front, listeners, tls_context(tls) if tls is not None else None)
        ports.open()
        return succeed(ports)

    return listen


def _begin_logging() -> None:
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    levels.setLogLevelForNamespace("batcher", LogLevel.info)
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [levels])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def _set_process(settings: ServerSettings) -> None:
    warnings.filterwarnings(
        "ignore", "Image size .* exceeds limit"
    )  # pictures' pixels are counted by the codec itself
    sys.setswitchinterval((settings.switch_interval_ms or OPERATORS_INTERVAL_MS) / 1e3)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

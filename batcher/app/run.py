"""Runs the whole server in this process, as fast as it can be, until a signal ends it.

The reactor is Twisted's asyncio reactor on a uvloop loop. Connections are served by uvloop's own
transports, which are only used when the loop itself listens (`asyncio_ports`), not the reactor.

Order matters here. The reactor is installed before anything imports Klein, which would install
another one. A SIGHUP that comes early is kept until the reactor runs. At the end the process exits
at once (`leave`), since a model that hangs in its thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.main import installReactor
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.app.access_log import AccessLog
from batcher.app.heap_trim import HeapTrim, heap_trimmer, resident_bytes
from batcher.app.log_lines import begin_logging
from batcher.app.outputs.standard import StandardOutputs
from batcher.app.process_settings import (
    leave_libraries,
    leave_objects,
    set_collector,
    set_process,
    set_switch_interval,
)
from batcher.app.reloading import Read, reason_of, reload_on_hangup
from batcher.batching import scheduler
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.core.forks import keep_from_forks
from batcher.core.standstill import TICK_S, Standstill
from batcher.frontends.endpoints.answer_log import WriteLine
from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.sockets import Listening
from batcher.frontends.listening.tls import Tls
from batcher.frontends.web.listening.twisted_ports import Listen
from batcher.frontends.web.tls_connection import TlsConnection
from batcher.workers.started_processes import kill_started_processes

if TYPE_CHECKING:
    from batcher.app.service import BatcherService
    from batcher.frontends.web.front import Front

_log = Logger()


class StartObserver(Protocol):
    """Hears how the start goes. Reactor thread."""

    def progress(self, title: str, text: str) -> None:
        """Hear in words what is being done with the model `title`."""

    def ready(self, address: str, definitions: Sequence[ModelDefinition]) -> None:
        """Hear once where clients connect, when every model is ready, and what the models are."""

    def empty(self, address: str, reasons: Sequence[str]) -> None:
        """Hear once where the server listens, which has no model, and why it has none."""

    def failed(self, reason: str) -> None:
        """Hear why the server could not start; it has stopped."""


class ServerReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor, which a second SIGTERM or SIGINT does not disturb.

    Attributes:
        stood_still: tells for how many seconds the loop has stood still.
    """

    stood_still: Callable[[], float]

    def stop(self) -> None:
        """Begin to stop; does nothing if that has begun."""
        with suppress(ReactorNotRunning):
            super().stop()  # type: ignore[no-untyped-call]  # Twisted's has no annotations


def run_server(settings: ServerSettings, base: Path, observer: StartObserver, read: Read) -> int:
    """Serve until a signal ends the server, and return the exit status. Main thread.

    Args:
        settings: the whole configuration.
        base: folder that relative paths in the settings start from.
        observer: hears how the start goes.
        read: reads the settings anew at each SIGHUP, from the sources that `settings` came from.
    """
    outputs = StandardOutputs()
    outputs.begin()
    try:
        return _serve(settings, base, observer, read, outputs)
    except Exception:
        _log.failure("the server ended by an error of its own")
        return 1
    finally:
        outputs.end()


def _serve(
    settings: ServerSettings,
    base: Path,
    observer: StartObserver,
    read: Read,
    outputs: StandardOutputs,
) -> int:
    """Serve as `run_server` does, with outputs that nobody waits for. Main thread."""
    loop = uvloop.new_event_loop()
    reactor = install_reactor(loop)
    begin_logging(settings.log_format, all_of_process=True)
    outputs.watch(loop)
    backend = getattr(loop, "_get_backend_id", None)  # of uvloop: the descriptor of its epoll
    keep_from_forks(descriptors=(backend(),) if backend is not None else ())
    _tick(loop, reactor)
    set_process(settings)
    reload_on_hangup(reactor, lambda: _reload(service, read))
    _hint_if_not_compiled()
    access_log = AccessLog(loop)
    service = make_service(settings, base, loop, reactor, observer.progress, access_log.write)
    service.server.metrics.dropped_by_outputs = outputs.dropped
    _give_memory_back(reactor, service)
    status = _run(reactor, service, observer)
    access_log.flush()
    return status


def install_reactor(loop: asyncio.AbstractEventLoop) -> ServerReactor:
    """Install the reactor on `loop`, which becomes that of this thread, and return it."""
    asyncio.set_event_loop(loop)
    reactor = ServerReactor(loop)
    # Not the system's clock: when that is set back, timers ring late, and set forward, all at once.
    reactor.seconds = monotonic
    reactor.stood_still = Standstill(monotonic).stood_still
    installReactor(reactor)
    return reactor


def _tick(loop: asyncio.AbstractEventLoop, reactor: ServerReactor) -> None:
    """Look at the clock, now and every `TICK_S`."""
    reactor.stood_still()
    loop.call_later(TICK_S, _tick, loop, reactor)


def _hint_if_not_compiled() -> None:
    if scheduler.__file__.endswith(".py"):
        _log.warn(
            "hint: the hot path is not compiled, so it is slower: install again where there is a C "
            "compiler"
        )


def make_service(
    settings: ServerSettings,
    base: Path,
    loop: asyncio.AbstractEventLoop,
    reactor: AsyncioSelectorReactor,
    progress: Callable[[str, str], None] = lambda title, text: None,
    write_access_line: WriteLine | None = None,
) -> BatcherService:
    """Return a server that listens by `loop`; nothing starts. Any thread."""
    # Here, since it imports Klein, which needs the reactor to be chosen.
    from batcher.app.service import BatcherService

    return BatcherService(
        settings,
        base,
        reactor,
        call_from_thread=partial(_call_from_thread, loop),
        call_soon=loop.call_soon,
        listen=_loop_listen(loop),
        progress=progress,
        write_access_line=write_access_line,
    )


def _call_from_thread(
    loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *arguments)


def _run(reactor: AsyncioSelectorReactor, service: BatcherService, observer: StartObserver) -> int:
    """Run `service` until a signal ends it, and return the exit status: 1 if it could not start."""
    reasons: list[str] = []

    def started(_: None) -> None:
        _follow_models(service)
        set_collector()
        _tell_start(service, observer)

    def not_started(failure: Failure) -> None:
        # A server that a signal stops while it starts has not failed.
        if service.state.value == "starting":
            reasons.append(reason_of(failure))
        if reactor.running:
            reactor.stop()

    leave_libraries()
    service.ready.addCallbacks(started, not_started)
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", leave_objects)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    for reason in reasons:  # at the very end, where people look first
        observer.failed(reason)
    return int(bool(reasons))


def _tell_start(service: BatcherService, observer: StartObserver) -> None:
    """Tell that the server listens, and whether it has a model."""
    if service.server.lifecycle.empty and not list(service.server):
        observer.empty(service.address, list(service.server.unready().values()))
    else:
        observer.ready(service.address, [version.definition for version in service.server])


def _follow_models(service: BatcherService) -> None:
    """Set the switch interval for the models that serve, now and whenever these change."""

    def set_interval() -> None:
        set_switch_interval(service.settings, service.server)

    set_interval()
    service.server.watch(set_interval)


def _reload(service: BatcherService, read: Read) -> None:
    reloaded = service.reload(read)
    # A reload that fails has its reasons in the log.
    reloaded.addCallbacks(
        lambda _: set_switch_interval(service.settings, service.server), lambda _: None
    )


def _give_memory_back(reactor: ServerReactor, service: BatcherService) -> None:
    trim = heap_trimmer()
    if trim is None:
        return
    # On a thread: a trim of a large heap may take longer than a turn of the loop should.
    holders = (service.front.buffers, *service.server.pools.holders)
    beside = partial(reactor.callInThread, trim)
    trims = HeapTrim(holders, reactor, beside, resident_bytes).start()
    trims.addErrback(lambda failure: _log.failure("memory is not given back any more", failure))


def leave(status: int) -> None:
    """End the process at once with `status`, whatever its other threads do."""
    kill_started_processes()
    os._exit(status)


def _loop_listen(loop: asyncio.AbstractEventLoop) -> Listen:
    def listen(
        front: Front, listeners: list[socket.socket], tls: Tls | None
    ) -> Deferred[Listening]:
        connection = front.connection if tls is None else partial(TlsConnection, front)
        ports = LoopPorts(loop, connection, lambda: front.limits, listeners, tls)
        ports.open()
        return succeed(ports)

    return listen

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.app.access_log import AccessLog
from batcher.app.heap_trim import HeapTrim, heap_trimmer, resident_bytes
from batcher.app.log_lines import begin_logging
from batcher.app.loop import ServerReactor, call_from_thread, install_reactor, tick
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
from batcher.frontends.endpoints.answer_log import WriteLine
from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.sockets import Listening
from batcher.frontends.listening.tls import Tls
from batcher.frontends.web.listening.twisted_ports import Listen
from batcher.frontends.web.tls_connection import TlsConnection
from batcher.workers.started_processes import kill_started_processes

if TYPE_CHECKING:
    from batcher.app.frontends import Ways
    from batcher.app.fronts.places import Places
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


def run_server(settings: ServerSettings, base: Path, observer: StartObserver, read: Read) -> int:
    """Serve until a signal ends the server, and return the exit status. Main thread.

    Args:
        settings: the whole configuration.
        base: folder that relative paths in the settings start from.
        observer: hears how the start goes.
        read: reads the settings anew at each SIGHUP, from the sources that `settings` came from.
    """
    if not settings.fronts:
        return _run_engine(settings, base, observer, read)
    # Here: a server without fronts does not wait for this import.
    from batcher.app.fronts.starting import run_with_fronts

    return run_with_fronts(settings, base, observer, read, _run_engine)


def _run_engine(
    settings: ServerSettings,
    base: Path,
    observer: StartObserver,
    read: Read,
    places: Places | None = None,
) -> int:
    """Serve as `run_server` does, in this process; fronts have the connections if `places` is."""
    outputs = StandardOutputs()
    outputs.begin()
    try:
        return _serve(settings, base, observer, read, outputs, places)
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
    places: Places | None,
) -> int:
    """Serve as `_run_engine` does, with outputs that nobody waits for. Main thread."""
    loop = uvloop.new_event_loop()
    reactor = install_reactor(loop)
    begin_logging(settings.log_format, all_of_process=True)
    outputs.watch(loop)
    _keep_loop_from_forks(loop)
    tick(loop, reactor)
    set_process(settings)
    reload_on_hangup(reactor, lambda: _reload(service, read))
    _hint_if_not_compiled()
    access_log = AccessLog(loop)
    service = _service(places, settings, base, loop, reactor, observer.progress, access_log.write)
    service.server.metrics.dropped_by_outputs = outputs.dropped
    _give_memory_back(reactor, service)
    status = _run(reactor, service, observer)
    access_log.flush()
    return status


def _service(places: Places | None, *parts: Any) -> BatcherService:
    return make_service(*parts) if places is None else make_engine(places, *parts)


def _keep_loop_from_forks(loop: asyncio.AbstractEventLoop) -> None:
    backend = getattr(loop, "_get_backend_id", None)  # of uvloop: the descriptor of its epoll
    keep_from_forks(descriptors=(backend(),) if backend is not None else ())


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
    ways: Ways | None = None,
) -> BatcherService:
    """Return a server that listens by `loop`, or by `ways`; nothing starts. Any thread."""
    # Here, since they import Klein, which needs the reactor to be chosen.
    from batcher.app.frontends import Ways
    from batcher.app.service import BatcherService

    return BatcherService(
        settings,
        base,
        reactor,
        call_from_thread=partial(call_from_thread, loop),
        call_soon=loop.call_soon,
        ways=ways or Ways(_loop_listen(loop)),
        progress=progress,
        write_access_line=write_access_line,
    )


def make_engine(
    places: Places,
    settings: ServerSettings,
    base: Path,
    loop: asyncio.AbstractEventLoop,
    reactor: ServerReactor,
    progress: Callable[[str, str], None],
    write_access_line: WriteLine,
) -> BatcherService:
    """Return a server whose connections are those of fronts; arguments as of `make_service`."""
    from batcher.app.fronts.engine_front import EngineFront, engine_ways

    ways = engine_ways(loop, places, reactor.stop)
    service = make_service(settings, base, loop, reactor, progress, write_access_line, ways)
    front = service.front
    assert isinstance(front, EngineFront), "the ways made it"
    front.attach(service.server, lambda: service.settings, loop.call_soon)
    service.ready.addCallback(lambda _: places.note_ready())
    return service


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
    try:
        kill_started_processes()
    finally:
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

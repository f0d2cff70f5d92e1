"""A front: a process that takes connections, decodes, asks the engine, and encodes.

It goes by what the engine says: the settings first, then the models, later the changes of both, and
at the end what to close. Signals are the engine's matter; a front that gets one lives on.

    connect --> SETTINGS: ports open --> … --> CLOSE --> DRAIN --> STOP
       ^                                 |
       `----------- the engine is gone --'   meanwhile every request is answered with 503

A front ends when both the engine and the process that has started it are gone. A front that cannot
open its ports, since the file of its certificate is gone, say, ends as well. Before, it shuts its
sockets: the kernel gives new connections to the other fronts until this one is there again.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvloop
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from batcher.app.fronts.places import Places
from batcher.app.heap_trim import HeapTrim, heap_trimmer, resident_bytes
from batcher.app.log_lines import begin_logging
from batcher.app.loop import ServerReactor, call_from_thread, install_reactor, tick
from batcher.app.outputs.standard import StandardOutputs
from batcher.app.process_settings import leave_libraries, set_collector, set_process
from batcher.config.settings import ServerSettings
from batcher.core.systemd_sockets import SYSTEMD_DESCRIPTORS
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.cors import Cors
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.link import messages
from batcher.frontends.link.asking import EngineLink, RemoteEngine
from batcher.frontends.link.channel import Channel
from batcher.frontends.link.counts import COUNTS_INTERVAL_S, FrontCounts
from batcher.frontends.link.frames import Message
from batcher.frontends.link.routes import front_routes
from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.sockets import BACKLOG_CONNECTIONS, shut_listeners
from batcher.frontends.listening.tls import tls_files
from batcher.frontends.web.limits import Limits
from batcher.serving.metrics import ServerMetrics
from batcher.serving.references.fetcher import InputFetcher
from batcher.workers.pool import CpuPool
from batcher.workers.pools import Pools, make_pools
from batcher.workers.shared_memory.region import sealed_file

if TYPE_CHECKING:
    from batcher.frontends.web.front import Front

_log = Logger()

REGION_BYTES = 64 << 20
"""Bytes of shared memory in each direction: a hundred pictures as arrays. Only what is in use takes
memory. What does not fit goes through the socket, more slowly.
"""

FILE_THREADS = 2
MOST_FILE_READS = 256
MOST_FILE_BYTES = 64 << 20
"""Threads of a front that read files for clients, pieces of files that wait for a thread, and the
bytes of those pieces: as many as one process has.
"""

RECONNECT_S = 0.05
"""Seconds before the next attempt to reach an engine for which too many fronts wait."""


def run_front(settings: ServerSettings, base: Path, places: Places, number: int) -> int:
    """Be the front `number` until the server ends; return the exit status. Main thread."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    outputs = StandardOutputs()
    outputs.begin()
    try:
        loop = uvloop.new_event_loop()
        reactor = install_reactor(loop)
        begin_logging(settings.log_format, all_of_process=True)
        outputs.watch(loop)
        tick(loop, reactor)
        set_process(settings)
        leave_libraries()
        program = FrontProgram(loop, reactor, base, places, number)
        program.metrics.dropped_by_outputs = outputs.dropped
        reactor.callWhenRunning(program.start)
        reactor.run(installSignalHandlers=False)  # type: ignore[no-untyped-call]  # Twisted's
        return int(program.has_failed)
    finally:
        outputs.end()


class FrontProgram:
    """The parts of a front and their wiring. Reactor thread.

    Attributes:
        metrics: what this front counts, which the engine shows.
        has_failed: whether the front ends since it could not open its ports.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reactor: ServerReactor,
        base: Path,
        places: Places,
        number: int,
    ) -> None:
        """Wire what does not depend on settings; `start` begins."""
        self.metrics = ServerMetrics()
        self._counts = FrontCounts(self.metrics)
        self._loop, self._reactor, self._base = loop, reactor, base
        self._places, self._listeners = places, places.listeners[number]
        self._link = EngineLink(self._hear, self._read_file)
        self._is_connected = self._is_orphan = self.has_failed = False
        self._channel: Channel
        self._settings: ServerSettings
        self._pools: Pools
        self._files: CpuPool
        self._engine: RemoteEngine
        self._answer_log: AnswerLog
        self._front: Front | None = None
        self._ports: LoopPorts | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Connect with the engine, and see when the server ends."""
        self._loop.add_reader(self._places.alive, self._orphaned)
        self._connect()

    def _connect(self) -> None:
        """Pass the engine new memory: nobody else can have a view of it."""
        try:
            connection, outgoing, incoming = introduced(self._places)
        except OSError:
            self._loop.call_later(RECONNECT_S, self._connect)
            return
        channel = Channel(outgoing, incoming, self._loop.call_soon, self._burst)
        channel.peer = self
        protocol: Any = channel  # by its methods
        made = self._loop.create_unix_connection(lambda: protocol, sock=connection)
        task = self._loop.create_task(made)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._channel = channel

    def _burst(self, function: Callable[..., object], *arguments: object) -> None:
        if self._front is None:
            function(*arguments)
        else:
            self._front.burst(function, *arguments)

    # What the channel tells.

    def take(self, message: Message) -> None:
        """Hear one message of the engine."""
        self._link.take(message)

    def lost(self) -> None:
        """Fail what waits for the engine, which is gone, and wait for the next one."""
        self._is_connected = False
        if self._front is not None:
            self._engine.forget()
        self._burst(self._link.lost)
        if self._is_orphan:
            self._reactor.stop()
        else:
            self._connect()

    def _hear(self, message: Message) -> None:
        match message[0]:
            case messages.SETTINGS:
                self._follow(pickle.loads(message[1]))
            case messages.MODELS:
                self._engine.follow(message)
            case messages.CLOSE:
                self._close_ports()
            case messages.DRAIN:
                self._drained(self._opened_front.drain())
            case messages.STOP:
                self._drained(self._opened_front.stop())
            case messages.TLS:
                self._renew_tls()

    def _orphaned(self) -> None:
        self._loop.remove_reader(self._places.alive)
        self._is_orphan = True
        if not self._is_connected:
            self._reactor.stop()

    # Settings.

    def _follow(self, settings: ServerSettings) -> None:
        """Go by `settings`; the first ones open the ports."""
        self._settings = settings
        if self._front is None:
            try:
                self._make(settings)
                self._open()
            except Exception:
                _log.failure("a front could not open its ports")
                self.has_failed = True
                if not self._places.shared:
                    shut_listeners(self._listeners)
                self._reactor.stop()
                return
        else:
            self._engine.fetcher.follow(settings)
            self._front.renew(*self._answering(settings))
        self._link.max_unread_bytes = self._opened_front.limits.buffers
        self._link.connected(self._channel)
        self._is_connected = True

    def _make(self, settings: ServerSettings) -> None:
        """Make what outlives a change of the settings."""
        cross = partial(call_from_thread, self._loop)
        burst = partial(cross, self._burst)
        self._pools = make_pools(settings, burst, self._reactor)
        bounds = (FILE_THREADS, MOST_FILE_READS, MOST_FILE_BYTES)
        self._files = CpuPool(*bounds, burst, self._reactor, "download")
        seconds = self._reactor.seconds
        counts = self.metrics.fetches
        fetcher = InputFetcher(settings, self._pools.inputs, seconds, counts)
        self._engine = RemoteEngine(self._link, self.metrics, self._pools, fetcher, seconds)
        self._answer_log = AnswerLog(self._reactor, self.metrics, None, self._engine.named)
        counting = LoopingCall(self._report)
        counting.clock = self._reactor
        counting.start(COUNTS_INTERVAL_S, now=False)
        set_collector()

    def _answering(self, settings: ServerSettings) -> tuple[Router, Any, Limits]:
        """Return what requests are answered by under `settings`."""
        from batcher.frontends.web.klein_app import klein_site

        disclosure = disclosure_of(settings, self._reactor.seconds)
        # Routes that ask more of the engine than decoding needs are answered there.
        engine, control = cast(Engine, self._engine), cast(ModelControl, None)
        table = routes(engine, control, settings, disclosure)
        self._answer_log.write_line = self._write_line if settings.access_log else None
        cors = Cors(settings.cors_origins) if settings.cors_origins else None
        own = front_routes(table, self._link, self._report)
        router = Router(own, self._answer_log, disclosure, cors)
        limits = share_of(Limits.from_settings(settings), len(self._places.listeners))
        return router, klein_site(router, limits.body), limits

    def _open(self) -> None:
        # Here, since they import twisted.web, which needs the reactor to be chosen.
        from batcher.frontends.web.front import Front
        from batcher.frontends.web.tls_connection import TlsConnection

        front = Front(*self._answering(self._settings), self._reactor, self.metrics)
        self._front = front
        front.start()
        self._give_memory_back(front)
        tls = tls_files(self._settings, self._base)
        make = front.connection if tls is None else partial(TlsConnection, front)
        ports = LoopPorts(self._loop, make, lambda: front.limits, self._listeners, tls)
        if not self._places.shared:
            for listener in self._listeners:
                listener.listen(BACKLOG_CONNECTIONS)  # the front before may have shut it
        ports.open()
        self._ports = ports

    @property
    def _opened_front(self) -> Front:
        assert self._front is not None, "the settings come first"
        return self._front

    def _renew_tls(self) -> None:
        tls = tls_files(self._settings, self._base)
        if tls is not None and self._ports is not None:
            self._ports.renew(tls)

    # The end.

    def _close_ports(self) -> None:
        ports, self._ports = self._ports, None
        copies = [each.dup() for each in self._listeners]
        closed = maybeDeferred(ports.close) if ports is not None else maybeDeferred(lambda: None)
        if not SYSTEMD_DESCRIPTORS:
            shut_listeners(copies)
        for copy in copies:
            copy.close()
        closed.addBoth(lambda _: self._link.send((messages.CLOSED,)))

    def _drained(self, ended: Deferred[None]) -> None:
        def say(_: object) -> None:
            self._report()
            self._link.send((messages.DRAINED,))

        ended.addBoth(say)

    # What goes on meanwhile.

    def _report(self) -> None:
        """Send what was counted since the last report."""
        if self._is_connected:
            self._link.send(self._counts.take())

    def _write_line(self, line: bytes) -> None:
        if self._is_connected and not self._link.is_behind:
            self._link.send((messages.LINE, line))
        else:
            self.metrics.dropped_lines["access_log"] += 1

    def _read_file(self, nbytes: int, function: Callable[[], Any]) -> Deferred[Any]:
        return self._files.run(nbytes, inf, function)

    def _give_memory_back(self, front: Front) -> None:
        trim = heap_trimmer()
        if trim is not None:
            beside = partial(self._reactor.callInThread, trim)
            holders = (front.buffers, *self._pools.holders)
            trims = HeapTrim(holders, self._reactor, beside, resident_bytes).start()
            trims.addErrback(lambda failure: _log.failure("memory is not given back", failure))


def introduced(places: Places) -> tuple[socket.socket, mmap, mmap]:
    """Return a connection with the engine, and memory to write and to read, which it was passed.

    Raises OSError: too many fronts wait for the engine, or this process has no descriptor left.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    files: list[int] = []
    try:
        connection.setblocking(False)
        connection.connect(places.link_name)
        files.extend(sealed_file(REGION_BYTES) for _ in range(2))  # one by one
        socket.send_fds(connection, [places.secret], files)
        outgoing, incoming = (mmap(file, REGION_BYTES) for file in files)
    except OSError:
        connection.close()
        raise
    finally:
        for file in files:
            os.close(file)
    return connection, outgoing, incoming


def share_of(limits: Limits, fronts: int) -> Limits:
    """Return the part of `limits` of all connections that each of so many fronts has."""
    return replace(
        limits,
        connections=-(-limits.connections // fronts),
        buffers=-(-limits.buffers // fronts),
    )

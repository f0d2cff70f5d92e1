"""The gRPC front: one port, in front of the same models as the connections of HTTP.

The library's server runs on the asyncio loop that the reactor turns, and so needs Twisted's asyncio
reactor. Its calls come to `Calls`, one coroutine each, on the reactor thread. A front opens, may be
given other settings while it is open, and ends in two steps: `drain` answers the calls that still
come while clients learn of the end, and `stop` ends the calls that are left.

The library's own way to drain is not used: it cancels calls that reach it once it has begun to stop
and before their clients have read of that. The port tells the clients instead, while the library
serves.

Clients connect to a `GuardedPort`, which connects them to the library's server. That server may end
by itself: one call whose path is not UTF-8 is enough (grpcio 1.85, which decodes the path in its
main loop). The front then begins a new one. Calls under way are lost with the old one; no way to
keep the library from it was found, because the path is decoded before any code of ours sees the
call.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
from grpc import aio
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, Draining
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.readiness import unready_error
from batcher.frontends.grpc.calls import INFERENCE_SERVICE, Calls, to_bytes
from batcher.frontends.grpc.connection_ends import GrpcLimits
from batcher.frontends.grpc.guarded_port import GuardedPort
from batcher.frontends.grpc.health import HEALTH_SERVICE, HealthService
from batcher.frontends.grpc.inference import Inference
from batcher.frontends.grpc.large import read_infer_message
from batcher.frontends.grpc.reflection import ReflectionService
from batcher.frontends.grpc.service import Service
from batcher.frontends.grpc.streams import Streams
from batcher.frontends.listening.ending import DRAIN_GRACE_S
from batcher.frontends.listening.tls import Tls, tls_files

Result = TypeVar("Result")
Handlers = Sequence["grpc.GenericRpcHandler[Any, Any]"]

_log = Logger()

LOOK_INTERVAL_S = 0.25
"""Seconds between two looks whether the library's server still runs: as long as that, new
connections have to wait.
"""

BEGIN_AGAIN_AFTER_S = 0.5
"""Seconds between two tries to begin another server of the library."""

MAX_CONNECTION_CALLS = 256
"""Calls of one connection at a time; a client keeps further calls until earlier calls have ended.

Batches of 128 rows stay full: one runs, and the next one waits.
"""

MAX_ENDED_CALLS = 512
"""Calls of one connection that have ended and that the library has not yet let go of.

Beyond MAX_CONNECTION_CALLS + MAX_ENDED_CALLS, new calls are refused. So a client gains nothing that
opens calls and resets them at once. Honest clients stay below: 8 connections with 1,000 calls each
in hand had no call refused, and with the library's 100 instead of 512, half of them. Measured with
12 connections that open and reset 400,000 calls a second on 2 cores: the calls of other clients
take at most 2.8 s, and the server grows by 300 MB. Without these bounds, it was 10 s and 950 MB.
"""

MAX_PENDING_CALLS = 1 << 14
"""Calls that the library may hold before a coroutine has begun to answer them.

64 connections with MAX_CONNECTION_CALLS each. A call that waits takes 5 KiB and its metadata, of
which the library takes 8 KiB: at most 208 MiB. By default the library cancels calls beyond about a
thousand, which one burst of honest clients can reach.
"""

MAX_OPTION = (1 << 31) - 1
"""Largest number that an option of the library holds."""

PING_AFTER_MS = 60_000
PING_TIMEOUT_MS = 20_000
"""Silence after which the library pings a client, and the time that the client has for an answer.

Both are milliseconds.
"""

MIN_CLIENT_PING_INTERVAL_MS = 5000
"""Milliseconds between two pings of a client with no data between them.

A client that pings more often is disconnected.
"""


class RpcFront:
    """Opens one port, answers calls, and comes to an end. Reactor thread.

    Attributes:
        address: the address on which the front listens, empty before.
    """

    _end_of_streams: IDelayedCall | None = None

    def __init__(
        self,
        engine: Engine,
        control: ModelControl,
        settings: ServerSettings,
        base: Path,
        clock: IReactorTime,
        answer_log: AnswerLog,
    ) -> None:
        """Store the arguments; nothing starts.

        Paths of certificates in `settings` are relative to the folder `base`.
        """
        self.address = ""
        self._engine = engine
        self._control = control
        self._settings = settings
        self._base = base
        self._clock = clock
        self._answer_log = answer_log
        self._stopping = asyncio.Event()
        self._server: aio.Server | None = None
        self._port: GuardedPort | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._disclosure = disclosure_of(settings, engine.seconds)

    @property
    def bound(self) -> tuple[int | str, ...]:
        """The TCP port and the path of the inner socket, once they are open."""
        return () if self._port is None else (self._port.port, str(self._port.inner))

    def open(self) -> Deferred[None]:
        """Listen; fires when the port is open.

        Fails with ConfigError if the reactor is not asyncio's, or the port cannot be opened.
        """
        # Only a callback that runs on the loop can find the running loop.
        return deferLater(self._clock, 0, lambda: None).addCallback(lambda _: self._in_loop())

    def renew(self, settings: ServerSettings) -> None:
        """Go by `settings` from now on, as far as settings can change while the port is open."""
        self._settings = settings
        self._disclosure.errors = settings.expose_errors
        self._disclosure.model_errors = settings.expose_model_errors
        self._streams.max_requests = settings.max_pipelined_requests
        self._streams.write_timeout_s = settings.write_timeout_s

    def drain(self) -> Deferred[None]:
        """Let every client end with the answers to its calls; fires when all have left.

        Streams that are left after `DRAIN_GRACE_S` take no more requests.
        """
        if self._server is None or self._port is None:
            self._stopping.set()
            return succeed(None)
        if self._end_of_streams is None:
            self._end_of_streams = self._clock.callLater(DRAIN_GRACE_S, self._end_streams)
        return self._port.drain()

    def stop(self) -> Deferred[None]:
        """End every call; fires when all have ended."""
        if self._end_of_streams is not None and self._end_of_streams.active():
            self._end_of_streams.cancel()
        self._stopping.set()
        ended: Deferred[None] = self._ended_library().addBoth(self._ended_port)
        return ended

    def renew_tls(self, tls: Tls) -> None:
        """Show the certificate in the files of `tls` to clients that connect from now on."""
        if self._port is not None:
            self._port.renew(tls)

    def _end_streams(self) -> None:
        self._stopping.set()
        self._health.changed()

    def _ended_library(self) -> Deferred[None]:
        """Cancel the calls that are left."""
        port, server = self._port, self._server
        if port is None:
            return succeed(None)
        # The connections that the kernel had taken reach the library before it closes.
        closed = port.close()
        if server is None:  # the library has not begun yet
            return closed
        self._health.changed()
        return closed.addCallback(lambda _: self._cancel_calls(server, port))

    def _cancel_calls(self, server: aio.Server, port: GuardedPort) -> Deferred[None]:
        # The library waits 20 s for a client that says nothing, unless its connection is closed.
        port.cut_off_soon()
        return _deferred(server.stop(0))

    def _ended_port(self, result: Any) -> Any:
        if self._port is None:
            return result
        return self._port.stop().addCallback(lambda _: result)

    def _in_loop(self) -> Deferred[None]:
        try:
            asyncio.get_running_loop()
        except RuntimeError as err:
            raise ConfigError(
                f"{self._settings.origin('grpc_port')}: grpc_port: expected Twisted's asyncio "
                f"reactor, which gRPC needs; got {type(self._clock).__name__}"
            ) from err
        return _deferred(self._open())

    async def _open(self) -> None:
        if self._stopping.is_set():
            raise Draining("the server was stopped before it had started")
        settings = self._settings
        tls = tls_files(settings, self._base)
        self._port = port = GuardedPort(settings, self._limits, tls)
        handlers = self._handlers(port)
        server = await self._started(handlers, port)
        if self._stopping.is_set():
            await server.stop(0)
            raise Draining("the server was stopped before it had started")
        self._server = server
        port.open()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.address = f"{'grpc' if tls is None else 'grpcs'}://{host}:{port.port}"
        self._supervision = asyncio.ensure_future(self._supervise(server, handlers, port))

    async def _started(self, handlers: Handlers, port: GuardedPort) -> aio.Server:
        """Return a server of the library that listens behind `port` and answers by `handlers`."""
        server = aio.server(
            options=_options(self._settings),
            maximum_concurrent_rpcs=self._settings.max_connections,
        )
        server.add_generic_rpc_handlers(handlers)
        server.add_insecure_port(f"unix:{quote(os.fsencode(port.inner))}")
        await server.start()
        return server

    async def _supervise(self, server: aio.Server, handlers: Handlers, port: GuardedPort) -> None:
        """Begin another server whenever the library's server ends by itself."""
        while True:
            await _ended(server)
            if self._stopping.is_set():
                port.is_over = True  # clients that still connect wait for nothing
                return
            _log.error("gRPC: the library's server ended by itself")  # which says why
            while not self._stopping.is_set():
                try:
                    self._server = server = await self._started(handlers, port)
                    break
                except (RuntimeError, OSError) as err:
                    _log.error(
                        "gRPC: the library's server does not begin again: {error}", error=err
                    )
                    await asyncio.sleep(BEGIN_AGAIN_AFTER_S)

    def _handlers(self, port: GuardedPort) -> Handlers:
        """Wire the parts, and return the handlers of all services."""
        settings, engine = self._settings, self._engine
        calls = Calls(INFERENCE_SERVICE, self._answer_log, self._disclosure, port.peer_of)
        checks = Calls(HEALTH_SERVICE, self._answer_log, self._disclosure, port.peer_of)
        self._health = HealthService(lambda: unready_error(engine) is None, self._stopping)
        engine.watch(self._health.changed)
        port.is_answering = lambda: calls.running + checks.running > 0
        inference = Inference(engine, port.peer_of)
        limits = settings.max_pipelined_requests, settings.write_timeout_s
        self._streams = streams = Streams(inference, calls, *limits, self._stopping)
        handlers = Service(engine, self._control, self._disclosure).handlers(calls)
        handlers |= [calls.unary("ModelInfer", inference.answer, read_infer_message)]
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            streams.answer, None, to_bytes
        )
        reflection = ReflectionService((INFERENCE_SERVICE, HEALTH_SERVICE), self._stopping)
        return (
            grpc.method_handlers_generic_handler(INFERENCE_SERVICE, handlers),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, self._health.handlers(checks)),
            *reflection.handlers(),
        )

    def _limits(self) -> GrpcLimits:
        now = self._settings
        return GrpcLimits(now.max_connections, now.header_timeout_s, now.write_timeout_s)


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        *_age_options(settings),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_CONNECTION_CALLS),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.http2.max_deallocating_streams", MAX_ENDED_CALLS),
        ("grpc.keepalive_time_ms", PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        # A client that pings between calls is no attacker.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_CLIENT_PING_INTERVAL_MS),
    ]


def _age_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Return the options that end old connections.

    The library lets ages differ by a tenth, either way, so that connections that began together do
    not end together. A client makes a new connection for its next call; calls under way have
    `drain_timeout_s`.
    """
    if not settings.max_connection_age_s:
        return []
    return [
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(settings.drain_timeout_s)),
    ]


def _milliseconds(seconds: float) -> int:
    """Return `seconds` in milliseconds, at least 1 and at most what the library's options hold."""
    return min(max(round(seconds * 1000), 1), MAX_OPTION)


async def _ended(server: aio.Server) -> None:
    """Wait for the end of `server`."""
    # Not `wait_for_termination`: an error in the library's main loop leaves it waiting for ever,
    # and cancelling it would cancel a `stop` under way.
    while server._server.is_running():
        await asyncio.sleep(LOOK_INTERVAL_S)


def _deferred(coroutine: Coroutine[Any, Any, Result]) -> Deferred[Result]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))

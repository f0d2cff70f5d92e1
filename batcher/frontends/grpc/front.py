"""The gRPC server: on the loop that the reactor turns, in front of the same models as the connections of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc import aio
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, Draining
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.oip.metadata import Metadata
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import SERVICE, Calls, to_bytes
from batcher.frontends.grpc.health import NAME, Health
from batcher.frontends.grpc.inference import Inference
from batcher.frontends.grpc.service import Service, is_ready
from batcher.frontends.grpc.streams import Streams
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer

Result = TypeVar("Result")

SPARE = 5.0
"""Seconds that the library's own end of calls comes after the service's: two ends at one moment
crash it (grpcio 1.85).
"""

MOST_PENDING = 1 << 20
"""Calls that the library may hold before we have seen them.

By itself it ends them as cancelled beyond about a thousand.
"""

PING = 60_000
"""Milliseconds of silence after which a client is asked whether it is there, and 20 s for its
answer.
"""


class RpcFront:
    """Opens one port, answers calls, and comes to an end. Reactor thread.

    Attributes:
        address: where it listens, once it does.
    """

    def __init__(
        self,
        server: ModelServer,
        repository: ModelRepository,
        settings: ServerSettings,
        base: Path,
        clock: IReactorTime,
        journal: AnswerLog,
    ) -> None:
        """Wire the parts; nothing starts."""
        self.address = ""
        self._models = server
        self._repository = repository
        self._settings = settings
        self._base = base
        self._clock = clock
        self._journal = journal
        self._stopping = asyncio.Event()
        self._server: aio.Server | None = None

    def open(self) -> Deferred[None]:
        """Listen; fails with ConfigError where the reactor is not asyncio's, or the port cannot be had."""
        return deferLater(self._clock, 0, lambda: None).addCallback(lambda _: self._in_loop())

    def renew(self, settings: ServerSettings) -> None:
        """Go by `settings` from now on, as far as they can change while the port is open."""
        self._settings = settings
        for calls in self._calls:
            calls.expose_model_errors = settings.expose_model_errors
        self._streams.most, self._streams.patience = (
            settings.max_pipelined_requests,
            settings.write_timeout_s,
        )

    def drain(self) -> Deferred[None]:
        """Take no more calls; fires when those that were taken are answered, or `stop` was called."""
        return self._end(self._settings.drain_timeout_s + SPARE)

    def stop(self) -> Deferred[None]:
        """End every call that is still here; fires when that is done."""
        return self._end(0)

    def _end(self, seconds: float) -> Deferred[None]:
        self._stopping.set()
        if self._server is None:
            return succeed(None)
        self._health.changed()
        return _deferred(self._server.stop(seconds))

    def _in_loop(self) -> Deferred[None]:
        try:
            asyncio.get_running_loop()
        except RuntimeError as err:
            raise ConfigError(
                f"{self._settings.origin('grpc_port')}: grpc_port: expected Twisted's asyncio "
                "reactor, which gRPC needs; "
                f"got {type(self._clock).__name__}"
            ) from err
        return _deferred(self._open())

    async def _open(self) -> None:
        if self._stopping.is_set():
            raise Draining("the server was stopped before it had started")
        settings = self._settings
        self._server = server = aio.server(
            options=_options(settings), maximum_concurrent_rpcs=settings.max_connections
        )
        calls = Calls(SERVICE, self._journal, settings.expose_model_errors)
        checks = Calls(NAME, self._journal, settings.expose_model_errors)
        metadata = Metadata(self._models)
        self._health = Health(lambda: is_ready(metadata.check_ready), self._stopping)
        self._models.watch(self._health.changed)
        inference = Inference(self._models)
        self._calls = (calls, checks)
        self._streams = streams = Streams(
            inference,
            calls,
            settings.max_pipelined_requests,
            settings.write_timeout_s,
            self._stopping,
        )
        handlers = Service(self._models, self._repository).handlers(calls)
        handlers |= [calls.unary("ModelInfer", inference.infer, pb.ModelInferRequest)]
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            streams.answer, None, to_bytes
        )
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler(NAME, self._health.handlers(checks)),
            )
        )
        self._bind(server)
        await server.start()

    def _bind(self, server: aio.Server) -> None:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        wanted = f"{host}:{settings.grpc_port}"
        try:
            if settings.tls_certificate is None:
                port = server.add_insecure_port(wanted)
            else:
                port = server.add_secure_port(
                    wanted, _credentials(settings, settings.tls_certificate, self._base)
                )
        except (RuntimeError, OSError) as err:
            place = f"{settings.origin('grpc_port')}: grpc_port"
            raise ConfigError(
                f"{place}: expected an address to listen on; got {wanted}: {err}"
            ) from err
        self.address = f"{'grpc' if settings.tls_certificate is None else 'grpcs'}://{host}:{port}"


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_connections),
        ("grpc.server.max_pending_requests", MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
        ("grpc.keepalive_time_ms", PING),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.keepalive_permit_without_calls", 1),  # clients that ping between calls are no attack
        ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ]


def _credentials(settings: ServerSettings, certificate: str, base: Path) -> grpc.ServerCredentials:
    key = base / (settings.tls_key or certificate)
    return grpc.ssl_server_credentials([(key.read_bytes(), (base / certificate).read_bytes())])


def _deferred(coroutine: Coroutine[Any, Any, Result]) -> Deferred[Result]:
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))

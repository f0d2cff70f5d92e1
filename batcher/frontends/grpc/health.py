"""The standard health service, as Kubernetes and load balancers ask it.

The package's own servicer keeps statuses that somebody must set, and a client that watches holds up
the end of the server; this one looks at the models when it is asked, and ends its streams when the
server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from batcher.errors import DecodingError, UnknownRoute
from batcher.frontends.grpc.calls import SERVICE, Calls, Context, parsed, status_of, to_bytes

NAME = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class Health:
    """`Check` and `Watch`, for the whole server and for the one service it has. Reactor thread."""

    def __init__(self, ready: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Tell what `ready` says; `stopping` ends what watches."""
        self._ready = ready
        self._stopping = stopping
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Have whoever watches look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """Return the handlers of both calls."""
        watch = grpc.unary_stream_rpc_method_handler(self.watch, None, to_bytes)
        return {
            "Watch": watch,
            **dict([calls.unary("Check", self.check, health_pb2.HealthCheckRequest)]),
        }

    async def check(self, message: Any, context: Context) -> Any:
        """Answer SERVING once every model is ready."""
        if message.service not in ("", SERVICE):
            raise _UnknownService(
                f"service: expected {SERVICE!r} or none; got {message.service!r:.200}"
            )
        return _Status(status=self._status())

    async def watch(self, data: bytes, context: Context) -> AsyncIterator[Any]:
        """Answer the status, and again whenever it changes."""
        try:
            service = parsed(health_pb2.HealthCheckRequest, data).service
        except DecodingError as err:
            await context.abort(*status_of(err, False))
        last = None
        while not self._stopping.is_set():
            changed = self._changed
            status = self._status() if service in ("", SERVICE) else _Status.SERVICE_UNKNOWN
            if status != last:
                yield _Status(status=status)
            last = status
            await changed.wait()
        yield _Status(status=_Status.NOT_SERVING)

    def _status(self) -> Any:
        return _Status.SERVING if self._ready() else _Status.NOT_SERVING


class _UnknownService(UnknownRoute):
    grpc_code = "NOT_FOUND"

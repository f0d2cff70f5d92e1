"""The standard health service, which Kubernetes and load balancers ask.

`Check` answers whether every model is ready at that moment. `Watch` answers the same, and again
after each change, until the server ends.

The servicer of the package grpc_health was refused for two reasons. It keeps statuses that other
code must set, where this service looks at the models. And a client that watches by it holds up the
end of the server, where this service ends its streams itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from batcher.core.error_text import brief
from batcher.errors import ClientError, UnknownRoute
from batcher.frontends.grpc.calls import (
    INFERENCE_SERVICE,
    Calls,
    Context,
    small_message,
    to_bytes,
)

HEALTH_SERVICE = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class HealthService:
    """`Check` and `Watch`, for the whole server and for its one service. Reactor thread."""

    def __init__(self, ready: Callable[[], bool], stopping: asyncio.Event) -> None:
        """Answer by `ready`, which says whether every model is ready; `stopping` ends watches."""
        self._ready = ready
        self._stopping = stopping
        self._changed = asyncio.Event()
        self._calls: Calls

    def changed(self) -> None:
        """Hear that a model or the server has changed: every watch looks again."""
        # Watches hold the old event, which has fired, and will next wait for the new one.
        self._changed.set()
        self._changed = asyncio.Event()

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """Return name and handler of both calls; `calls` makes and counts that of `Check`."""
        self._calls = calls
        parse = partial(small_message, health_pb2.HealthCheckRequest)
        handlers = dict([calls.unary("Check", self.check, parse)])
        watch = grpc.unary_stream_rpc_method_handler(self.watch, None, to_bytes)
        return {"Watch": watch, **handlers}

    async def check(self, message: Any, context: Context) -> Any:
        """Answer SERVING once every model is ready, else NOT_SERVING.

        Fails with NOT_FOUND for a service that the server lacks. Reactor thread.
        """
        if message.service not in ("", INFERENCE_SERVICE):
            got = brief(message.service, 200)
            raise _UnknownService(f"service: expected {INFERENCE_SERVICE!r} or none; got {got}")
        return _Status(status=self._status())

    async def watch(self, data: bytes, context: Context) -> AsyncIterator[Any]:
        """Answer the status at once, and after each change; NOT_SERVING when the server ends.

        Reactor thread.
        """
        try:
            service = small_message(health_pb2.HealthCheckRequest, data).service
        except ClientError as err:
            await context.abort(*self._calls.status_of(err, context))
        last = None
        while not self._stopping.is_set():
            changed = self._changed  # before the status: a change in between is not missed
            status = (
                self._status() if service in ("", INFERENCE_SERVICE) else _Status.SERVICE_UNKNOWN
            )
            if status != last:
                yield _Status(status=status)
            last = status
            await changed.wait()
        yield _Status(status=_Status.NOT_SERVING)

    def _status(self) -> Any:
        return _Status.SERVING if self._ready() else _Status.NOT_SERVING


class _UnknownService(UnknownRoute):
    grpc_code = "NOT_FOUND"

"""Server reflection: clients such as grpcurl ask which services, calls and messages there are.

The package grpc_reflection answers from one pool of definitions. The messages of the protocol are
in a pool of their own (`_generated/pool.py`), those of the health service in protobuf's, so a
client is answered from both. The package is not handed the streams: a client that leaves one open
would hold up the end of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from batcher.errors import DecodingError
from batcher.frontends.grpc._generated.pool import POOL
from batcher.frontends.grpc.calls import Context, parse_message, to_bytes

REFLECTION_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""The service's name and its name of before, by which most clients still ask; both are alike."""

MAX_QUESTION_BYTES = 1 << 12
"""Bytes of one question, which holds one name, and which is part of the answer."""


class _BothPools:
    """Finds definitions in the protocol's pool, and then in protobuf's own."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def find(*arguments: Any) -> Any:
            try:
                return getattr(POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find


class ReflectionService:
    """Answers streams of questions. Reactor thread."""

    def __init__(self, services: Iterable[str], stopping: asyncio.Event) -> None:
        """Tell of `services`, by their names; `stopping` ends the streams."""
        names = (*services, *REFLECTION_SERVICES)
        self._servicer = reflection.aio.ReflectionServicer(names, pool=_BothPools())
        self._stopping = stopping

    def handlers(self) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
        """Return the handlers of both services."""
        answer = grpc.stream_stream_rpc_method_handler(self.answer, None, to_bytes)
        return tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": answer})
            for name in REFLECTION_SERVICES
        )

    async def answer(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        """Answer each question, until the client or the server ends. Reactor thread."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._stopping.wait())
        coming = stopping
        try:
            while True:
                coming = asyncio.ensure_future(anext(messages, None))
                await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() or (data := coming.result()) is None:
                    return
                try:
                    question = _question(data)
                except DecodingError as err:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(err))
                async for found in self._servicer.ServerReflectionInfo(_one(question), context):
                    yield found
        finally:
            stopping.cancel()
            coming.cancel()


def _question(data: bytes) -> Any:
    if len(data) > MAX_QUESTION_BYTES:
        raise DecodingError(
            f"expected a question of at most {MAX_QUESTION_BYTES} bytes; got {len(data)}"
        )
    return parse_message(reflection_pb2.ServerReflectionRequest, data)


async def _one(question: Any) -> AsyncIterator[Any]:
    yield question

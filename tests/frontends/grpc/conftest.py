"""Calls without a socket: a context that the test sets up, and a loop that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import grpc
import pytest

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.calls import INFERENCE_SERVICE, Calls
from batcher.frontends.grpc.inference import Inference
from batcher.frontends.grpc.streams import Streams
from tests.support.http import MemoryServer
from tests.support.models import rows

PEERS = {"unix-abstract:00001": "127.0.0.1:5000"}
"""Who is behind what the library calls the client."""


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def turn(times: int = 1) -> None:
    """Let the loop turn."""
    for _ in range(times):
        await _Turn()


class Aborted(Exception):
    """A call ended with a status.

    Attributes:
        code: of the status.
        text: of the status.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Context:
    """A call's context.

    Attributes:
        left: seconds until the call's deadline, None without one.
        written: the answers of a stream.
        trailing: the metadata behind the answer.
    """

    def __init__(self, left: float | None = None, *metadata: tuple[str, str | bytes]) -> None:
        self.left = left
        self._metadata = metadata
        self.written: list[Any] = []
        self.trailing: tuple[tuple[str, str], ...] = ()

    async def write(self, answer: Any) -> None:
        self.written.append(answer)

    def time_remaining(self) -> float | None:
        return self.left

    def peer(self) -> str:
        return "unix-abstract:00001"

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        raise Aborted(code, text)


class Rpc:
    """A server in memory and the calls in front of it.

    Attributes:
        server: the server.
        stopping: set where streams are to end.
        inference: answers a request.
        streams: answers streams.
        calls: what makes handlers.
    """

    def __init__(self, server: MemoryServer, most_streamed: int = 4) -> None:
        self.server = server
        self.stopping = asyncio.Event()
        log, disclosure = server.router.answer_log, server.router.disclosure
        self.calls = Calls(INFERENCE_SERVICE, log, disclosure, PEERS.__getitem__)
        self.inference = Inference(server.server, PEERS.__getitem__)
        self.streams = Streams(self.inference, self.calls, most_streamed, 60, self.stopping)

    async def settle(self) -> None:
        """Let everything happen that can; batches run."""
        for _ in range(30):
            await turn()
            self.server.work()

    async def infer(self, message: Any, context: Context | None = None) -> Any:
        """Return the answer to `message`, or raise what it failed with."""
        task = asyncio.ensure_future(self.inference.infer(message, context or Context()))
        await self.settle()
        return await task


def request(*values: float, name: str = "m", **more: Any) -> pb.ModelInferRequest:
    """Return a request of one row of the default model for each of `values`."""
    array = rows(*(values or (1.0,)))
    entry = {"name": "x", "datatype": "FP32", "shape": array.shape}
    return pb.ModelInferRequest(
        model_name=name, inputs=[entry], raw_input_contents=[array.tobytes()], **more
    )


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run the coroutine function `test` to its end."""
    asyncio.run(test())  # type: ignore[arg-type]  # a coroutine function's result is a coroutine


@pytest.fixture
def rpc() -> Rpc:
    """Return the calls in front of a server with one model, which doubles."""
    return Rpc(MemoryServer())

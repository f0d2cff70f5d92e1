"""The asyncio form, on transports of the running loop.

Cancelling a call closes its connection, and the server then drops the request too.

Why no library sends the requests: httpx looks through all its waiting requests and connections at
each call, so 5,000 calls at once take minutes; aiohttp has its own layers of sessions, cookies and
redirects, which cost more than the rest of a call. `benchmarks/clients.py` measures both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any, Self, TypeVar

from batcher.client.attempts import UNTIL_READY, Attempts, ClientOptions, checked_options
from batcher.client.connection_pool import Turn
from batcher.client.errors import AnswerLost, ClientFailure, NotConnected
from batcher.client.http_exchange import ResponseReader, request_bytes
from batcher.client.pooled_calls import PooledCalls
from batcher.client.readiness import Readiness
from batcher.client.request_building import (
    HttpRequest,
    Inputs,
    MetadataOperation,
    Operation,
    ReadyOperation,
    infer_operation,
    model_path,
)
from batcher.client.response_reading import HttpResponse, InferResult
from batcher.client.retrying import RetryPolicy
from batcher.client.server_address import CurveKeys

_NEXT_ADDRESS_S = 0.25
"""Seconds after which the next address of a host is tried as well, as RFC 8305 has it."""

Result = TypeVar("Result")
Connect = Callable[
    [Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]
]
"""Opens a connection for the protocol that it is given the maker of, as a loop's
`create_connection` and `create_unix_connection` do.
"""


class AsyncClient:
    """A server to be asked, from the tasks of one asyncio loop; the loop's clock is the client's.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely does not run twice. Connections are kept and used again until `close`, or until the end
    of the `async with` block. Thousands of calls may wait at once: each waits for its turn.

    Args:
        address: as for `Client`, and so are `timeout`, `retries`, `connections`, `api_key` and
            `ssl_context`.
        timeout: seconds for a whole call, the wait for a connection included.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to.
        ssl_context: what an `https` server must prove, in place of the system's usual.
        connect: opens a connection in place of the one to `address`, for a Unix socket, say:
            `lambda made: asyncio.get_running_loop().create_unix_connection(made, path)`.
        curve: as for `Client`.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        ssl_context: SSLContext | None = None,
        connect: Connect | None = None,
        curve: CurveKeys | None = None,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._options = checked_options(address, timeout, retries, api_key)
        connect = connect or _tcp(self._options, ssl_context)
        kind = _ZeromqCalls if self._options.address.endpoint else _Calls
        self._calls = kind(self._options, connections, connect, curve)

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> InferResult:
        """Run a model, and return its outputs.

        The arguments and the errors are those of `Client.infer`.
        """
        operation = infer_operation(model, inputs, version, outputs, priority, request_id)
        return await self._call(operation, timeout)

    async def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`.

        Raises:
            ClientFailure: in one of its forms, why there is no description.
        """
        return await self._call(MetadataOperation(model_path(model, version)), timeout)

    async def is_ready(self, *, timeout: float | None = None) -> bool:
        """Return whether every model of the server is ready; False also if nobody answers."""
        try:
            await self._call(ReadyOperation(), timeout, RetryPolicy(0))
        except ClientFailure:
            return False
        return True

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return once every model of the server is ready.

        Raises:
            ClientFailure: the failure of the last attempt, if the time is over.
        """
        await self._call(ReadyOperation(), timeout, UNTIL_READY)

    async def close(self) -> None:
        """Close all connections; calls that have not ended raise `ClientClosed`."""
        await self._calls.closed()

    async def __aenter__(self) -> Self:
        """Return the client, which the end of the block closes."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.close()

    async def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Result:
        self._calls.check_loop()
        attempts = self._options.attempts(operation, timeout, self._calls.seconds(), policy)
        return await self._calls.call(attempts)


class _Connection(asyncio.Protocol):
    """A connection of the client's; one request at a time."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._reader = ResponseReader()
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._transport: Any = None
        self._has_come: Readiness | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange allows another one."""
        return (
            self._reader.is_reusable
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent.

        The socket is looked at, since a loop that was busy, or that did not run for a while, has
        not told of the server's closing yet.
        """
        return self.is_reusable and not self._has_come

    def ask(self, request: HttpRequest) -> asyncio.Future[HttpResponse]:
        """Send a request."""
        self._reader.expect()
        self._answer = self._calls.loop.create_future()
        self._transport.write(request_bytes(request, self._calls.options))
        return self._answer

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and its socket in view."""
        self._transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None:  # a transport of the caller's own need not have one
            self._has_come = Readiness(raw.fileno())
        self._calls.open_connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the response; bytes that nobody asked for end the connection."""
        answer = self._answer
        if answer is None or answer.done():
            self._transport.abort()
            return
        try:
            response = self._reader.feed(data)
        except ClientFailure as err:
            answer.set_exception(err)
            return
        if response is not None:
            self._answer = None  # which would hold the response while the connection is idle
            answer.set_result(response)

    def connection_lost(self, error: Exception | None) -> None:
        """End the call with what has come."""
        self._calls.open_connections.discard(self)
        self._calls.ended(self)
        response = self._reader.end()
        answer = self._answer
        if answer is None or answer.done():
            return
        if response is not None and error is None:
            answer.set_result(response)
        else:
            answer.set_exception(
                AnswerLost(
                    f"expected an answer; the connection broke: {error or 'the server closed it'}"
                )
            )


class _Calls(PooledCalls[Any]):
    """The calls of one client, in one loop."""

    def __init__(
        self,
        options: ClientOptions,
        connections: int,
        connect: Connect,
        curve: CurveKeys | None = None,
    ) -> None:
        super().__init__(options, connections)
        self._connect = connect
        self._curve = curve
        self._loop: asyncio.AbstractEventLoop | None = None
        self.open_connections: set[Any] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the first call."""
        assert self._loop is not None
        return self._loop

    def check_loop(self) -> None:
        """Let calls of one loop pass.

        Raises:
            RuntimeError: the client belongs to another loop.
        """
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError(
                "expected the event loop of this AsyncClient's first call, to which its "
                "connections belong; got another loop: make an AsyncClient in each loop, or use "
                "Client"
            )

    async def closed(self) -> None:
        """End all connections, and wait until the loop has let go of them."""
        for turn in self.close():
            turn.grant(None)
        for connection in list(self.open_connections):
            connection.abort()
        while self.open_connections and self._loop is asyncio.get_running_loop():
            await asyncio.sleep(0)

    def seconds(self) -> float:
        return self.loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def connect(self, seconds: float) -> Any:
        connection = _Connection(self)
        try:
            async with asyncio.timeout(seconds):
                await self._connect(lambda: connection)
        except (OSError, TimeoutError) as err:
            raise NotConnected(
                f"expected a connection; got none: {err or type(err).__name__}"
            ) from err
        return connection

    def turn(self) -> tuple[Turn[Any], asyncio.Future[None]]:
        waiting: asyncio.Future[None] = self.loop.create_future()
        return Turn(lambda: None if waiting.done() else waiting.set_result(None)), waiting

    def timer(self, attempts: Attempts[Any], waiting: Any) -> asyncio.TimerHandle | None:
        if attempts.deadline == inf:
            return None
        return self.loop.call_at(attempts.deadline, _expire, waiting, attempts)

    def stop(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class _ZeromqCalls(_Calls):
    """The calls of one client over ZeroMQ, in one loop."""

    async def connect(self, seconds: float) -> Any:
        # here, since only such an address needs the library
        from batcher.client.zeromq_async import AsyncZeromqConnection

        connection = AsyncZeromqConnection(self.options, self._curve, self.loop, self._gone)
        self.open_connections.add(connection)
        try:
            await connection.connected(seconds)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _gone(self, connection: Any) -> None:
        self.open_connections.discard(connection)
        self.ended(connection)


def _expire(waiting: asyncio.Future[Any], attempts: Attempts[Any]) -> None:
    if not waiting.done():
        waiting.set_exception(attempts.expired())


def _is_plain(loop: asyncio.AbstractEventLoop) -> bool:
    return isinstance(loop, asyncio.BaseEventLoop)


def _tcp(options: ClientOptions, ssl_context: SSLContext | None) -> Connect:
    server = options.address
    secure = (ssl_context or create_default_context()) if server.is_secure else None

    def connect(made: Callable[[], asyncio.Protocol]) -> Any:
        loop = asyncio.get_running_loop()
        # an address that is silent does not keep the call from the others; uvloop has no such way
        ways: dict[str, Any] = {"happy_eyeballs_delay": _NEXT_ADDRESS_S} if _is_plain(loop) else {}
        return loop.create_connection(made, server.host, server.port, ssl=secure, **ways)

    return connect

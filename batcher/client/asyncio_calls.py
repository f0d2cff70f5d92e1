"""Connections of the asyncio form: its transports, its timers, and how it connects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from ssl import SSLContext, create_default_context
from typing import Any, NamedTuple

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.connection_pool import Turn
from batcher.client.errors import AnswerLost, ClientFailure, NotConnected
from batcher.client.http_exchange import ResponseReader, request_bytes
from batcher.client.pooled_calls import PooledCalls
from batcher.client.readiness import Readiness
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.server_address import CurveKeys

_NEXT_ADDRESS_S = 0.25
"""Seconds after which the next address of a host is tried as well, as RFC 8305 has it."""

Connect = Callable[
    [Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]
]
"""Opens a connection for the protocol that it is given the maker of, as a loop's
`create_connection` and `create_unix_connection` do.
"""


class _Connection(asyncio.Protocol):
    """A connection of the client's; one request at a time."""

    def __init__(self, calls: AsyncioCalls) -> None:
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


class AsyncioCalls(PooledCalls[Any]):
    """The calls of one client, in one loop."""

    def __init__(
        self,
        options: ClientOptions,
        connections: int,
        connect: Connect,
        curve: CurveKeys | None = None,
    ) -> None:
        """Open at most so many connections."""
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
        for turn in self._turns:
            turn.grant(None)
        for connection in list(self.open_connections):
            connection.abort()
        while self.open_connections and self._loop is asyncio.get_running_loop():
            await asyncio.sleep(0)

    def seconds(self) -> float:
        """Return the time of the loop."""
        return self.loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def connect(self, seconds: float) -> Any:
        """Open a connection within so many seconds. Raises NotConnected."""
        connection = _Connection(self)
        try:
            async with asyncio.timeout(seconds):
                await self._connect(lambda: connection)
        except (OSError, TimeoutError) as err:
            raise NotConnected(
                f"expected a connection; got none: {err or type(err).__name__}"
            ) from err
        return connection

    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function soon, on the loop's thread. Any thread."""
        with suppress(RuntimeError):  # a loop that is closed has nobody who waits
            self.loop.call_soon_threadsafe(function, *arguments)

    def turn(self) -> tuple[Turn[Any], asyncio.Future[None]]:
        """Return a turn, and what ends once the turn has come."""
        waiting: asyncio.Future[None] = self.loop.create_future()
        return Turn(lambda: None if waiting.done() else waiting.set_result(None)), waiting

    def timer(self, attempts: Attempts[Any], waiting: Any) -> asyncio.TimerHandle | None:
        """Fail `waiting` with `DeadlineExceeded` at the deadline."""
        if attempts.deadline == inf:
            return None
        return self.loop.call_at(attempts.deadline, _expire, waiting, attempts)

    def stop(self, timer: asyncio.TimerHandle | None) -> None:
        """End a timer, whether it has run or not."""
        if timer is not None:
            timer.cancel()


class ZeromqCalls(AsyncioCalls):
    """The calls of one client over ZeroMQ, in one loop."""

    async def connect(self, seconds: float) -> Any:
        """Open a connection within so many seconds. Raises NotConnected."""
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


class AsyncioSetup(NamedTuple):
    """How the calls of one client connect, whichever server they are to.

    Attributes:
        connections: most connections at once to a server.
        connect: opens a connection; None for one to the address.
        ssl_context: what an `https` server must prove; None for the system's usual.
        curve: keys for servers of ZeroMQ that ask for some.
    """

    connections: int
    connect: Connect | None
    ssl_context: SSLContext | None
    curve: CurveKeys | None

    def calls(self, options: ClientOptions) -> AsyncioCalls:
        """Return what makes the calls to one server."""
        kind = ZeromqCalls if options.address.endpoint else AsyncioCalls
        connect = self.connect or _tcp(options, self.ssl_context)
        return kind(options, self.connections, connect, self.curve)

    def calls_in_this_loop(self, options: ClientOptions) -> AsyncioCalls:
        """Return what makes the calls to one server, from the loop that runs now."""
        calls = self.calls(options)
        calls.check_loop()
        return calls


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

"""The connections: HTTP/1.1 over uvloop transports, one request under way on each.

Request bytes are written to the socket at once (`socket.send`). The transport takes over only the
bytes that the kernel did not take. The transport's own `write` was refused, because it writes at
the end of the loop's turn, after the answers of the same turn were read: a lag that nobody would
see. Reading is left to the transport.

Answers are parsed by httptools. An answer that is framed by the end of its connection counts as
`reset`; informational answers (1xx) are passed over. A connection that ends, for whatever reason,
is opened again; a failed connect is tried again after `_RETRY_S`.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from benchmarks.loadgen.schedule import Alarm
from benchmarks.loadgen.tally import ErrorKind, Tally
from benchmarks.loadgen.traffic import Traffic

_MAX_PARALLEL_CONNECTS = 32  # below every server's backlog
# a server that is down is asked ten times a second by each connection, not in a busy loop
_RETRY_S = 0.1
_LEAD_S = 0.05  # between the last preparation and the first request
_SWEEPS_PER_TIMEOUT = 20  # timeouts are noticed within 5 % of their length
_MAX_SWEEP_S = 0.1  # the end of a run is noticed as late as this


class LoadError(Exception):
    """The load could not be run at all."""


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        family: address family of the socket.
        address: resolved address, as `connect` takes it.
        request: bytes of one request.
        timeout: seconds that a request waits for a connection, and again for its answer.
    """

    family: int
    address: tuple[object, ...]
    request: bytes
    timeout: float


@dataclass(frozen=True)
class Window:
    """How long a run takes.

    Attributes:
        warmup: seconds of load that are not measured.
        duration: seconds after the warm-up, which are measured.
    """

    warmup: float
    duration: float


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way.

    Tells the tally how each request ended, once, and the traffic whenever it can take the next.
    Loop thread.
    """

    __slots__ = (
        "_answers",
        "_clock",
        "_parser",
        "_pool",
        "_reusable",
        "_sock",
        "_spilled",
        "_status",
        "_transport",
        "busy",
        "closed",
        "due",
        "open",
        "since",
    )

    def __init__(self, pool: Pool, sock: socket.socket, closed: asyncio.Future[None]) -> None:
        """Speak on `sock`, which is connected and non-blocking.

        `closed` fires when the connection has ended.
        """
        self._pool = pool
        self._sock = sock
        self._clock = pool.clock
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answers = 0
        self._status = 0
        self._reusable = True
        self._spilled = False
        self.closed = closed
        self.due = 0.0
        self.since = 0.0
        self.busy = False
        self.open = False

    def send(self, due: float, now: float) -> None:
        """Send the request that was due at `due`; its time limit runs from now."""
        self.due = due
        self.since = now
        self.busy = True
        request = self._pool.target.request
        written = 0
        if not self._spilled:
            try:
                written = self._sock.send(request)
            except BlockingIOError:
                pass
            except OSError:
                self._transport.abort()  # connection_lost counts the request
                return
        if written < len(request):
            self._spilled = True  # from now on everything in order, behind what the transport holds
            self._transport.write(request[written:])

    def give_up(self, kind: ErrorKind) -> None:
        """End the connection, and with it the request under way."""
        self._fail(kind)
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open for the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, without saying so
        self.open = True
        self._pool.connections.add(self)
        self._pool.traffic.ready(self, self._clock())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, whoever ended it."""
        self.open = False
        self._pool.connections.discard(self)
        self._fail("reset")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse some bytes of an answer."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._reusable = False
            if not self._answers:  # else the error is in what follows a good answer
                self.give_up("protocol")
                return
        if self._answers:
            self._complete()

    def on_message_complete(self) -> None:
        """The parser has an answer; only now does it know whether the connection stays."""
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._answers += 1
            self._reusable = self._parser.should_keep_alive()

    def _complete(self) -> None:
        now = self._clock()
        if self._answers > 1 or not self.busy:
            self.give_up("protocol")
            return
        self._answers = 0
        self.busy = False
        self._pool.tally.answered(self.due, self._status, now)
        if self._reusable:
            self._pool.traffic.ready(self, now)
        else:
            self.open = False
            self._transport.close()

    def _fail(self, kind: ErrorKind) -> None:
        if self.busy:
            self.busy = False
            self._pool.tally.failed(self.due, kind)


class Pool:
    """A fixed number of connections, each opened again when it ends. Loop thread."""

    def __init__(self, target: Target, traffic: Traffic, clock: Callable[[], float]) -> None:
        """Store the arguments; `open` opens.

        Nothing is counted before `tally` is replaced by that of the run.
        """
        self.target = target
        self.traffic = traffic
        self.clock = clock
        self.tally = Tally(float("inf"), float("inf"))
        self.connections: set[Connection] = set()
        self._gate = asyncio.Semaphore(_MAX_PARALLEL_CONNECTS)
        self._keepers: list[asyncio.Task[None]] = []

    async def open(self, size: int) -> None:
        """Open `size` connections; returns when each has been tried once.

        Raises:
            LoadError: Not one could be opened.
        """
        first = await asyncio.gather(*(self._connect() for _ in range(size)))
        if not any(first):
            raise LoadError("not one connection could be opened")
        self._keepers = [asyncio.create_task(self._keep(connection)) for connection in first]

    async def close(self) -> None:
        """Close all connections."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for connection in list(self.connections):
            connection.give_up("reset")

    def expire(self, limit: float) -> None:
        """Give up the requests under way that were sent before `limit`."""
        for connection in [c for c in self.connections if c.busy and c.since < limit]:
            connection.give_up("timeout")

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return any(connection.busy for connection in self.connections)

    async def _keep(self, connection: Connection | None) -> None:
        while True:
            if connection is None:
                self.traffic.unreachable(self.clock(), len(self.connections))
                await asyncio.sleep(_RETRY_S)
            else:
                await connection.closed
            connection = await self._connect()

    async def _connect(self) -> Connection | None:
        loop = asyncio.get_running_loop()
        closed = loop.create_future()
        sock = socket.socket(self.target.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with self._gate, asyncio.timeout(self.target.timeout):
                await loop.sock_connect(sock, self.target.address)
                _, connection = await loop.create_connection(
                    lambda: Connection(self, sock, closed), sock=sock
                )
        except OSError:
            sock.close()
            return None
        return connection


async def generate(
    target: Target, traffic: Traffic, window: Window, connections: int
) -> tuple[Tally, float]:
    """Run the traffic against the target; the share of a core it took comes with the tally.

    The garbage collector rests meanwhile: the hot path makes no cycles, and a full collection is a
    pause of 3 ms.

    Raises:
        LoadError: No connection could be opened.
    """
    pool = Pool(target, traffic, time.monotonic)
    alarm = Alarm(asyncio.get_running_loop(), time.monotonic)
    await pool.open(connections)
    gc.collect()
    gc.freeze()
    gc.disable()
    origin = time.monotonic() + _LEAD_S
    begin = origin + window.warmup
    tally = pool.tally = Tally(begin, begin + window.duration)
    traffic.start(origin, tally)
    alarm.start(traffic.send_due, traffic.next_due)
    core = await _until_settled(pool, tally.end)
    alarm.stop()
    await pool.close()
    gc.enable()
    return tally, core


async def _until_settled(pool: Pool, end: float) -> float:
    """Give up what is late until nothing is under way after `end`.

    Returns the share of a core used until then.
    """
    timeout = pool.target.timeout
    period = min(timeout / _SWEEPS_PER_TIMEOUT, _MAX_SWEEP_S)
    started, used = time.monotonic(), time.process_time()
    core = 0.0
    while True:
        await asyncio.sleep(period)
        now = time.monotonic()
        pool.traffic.expire(now - timeout)
        pool.expire(now - timeout)
        if now >= end:
            core = core or (time.process_time() - used) / (now - started)
            if not pool.traffic.pending and not pool.busy:
                return core

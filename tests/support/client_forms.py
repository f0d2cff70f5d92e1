"""The three forms of the client, each against a `Peer`.

The clock of each form moves only when everybody waits.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.client import AsyncClient, Client, TwistedClient
from tests.support.oip_peer import Peer
from tests.support.peer_connection import PeerConnection

ADDRESS = "http://peer:1/base"
ClientCall = Callable[[Any], Any]
"""Calls a method of a client."""

CallResult = tuple[Any, float]
"""The result or the exception of a call, and the seconds that the call took."""


class Line:
    """The descriptor of a connection to a `Peer`: readable once the peer speaks unasked."""

    def __init__(self, peer: Peer) -> None:
        self._ends = os.pipe()
        self.is_closed = False
        peer.speak = lambda: os.write(self._ends[1], b"x")

    def fileno(self) -> int:
        return self._ends[0]

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            for end in self._ends:
                os.close(end)


class PeerSocket(Line):
    """A connected socket, whose waits move a clock."""

    def __init__(self, peer: Peer, clock: Clock) -> None:
        self._connection = PeerConnection(peer)
        super().__init__(peer)
        self._clock = clock
        self._timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        assert seconds is None or seconds < 9e9, "more than a socket of the system takes"
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        self._connection.take(data)

    def recv(self, most: int) -> bytes:
        found, self._connection.answers = self._connection.answers[:5], self._connection.answers[5:]
        if not found and self._connection.is_hanging:
            assert self._timeout is not None, "nothing will ever happen again"
            self._clock.advance(self._timeout)
            raise TimeoutError("timed out")
        return found


def blocking(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on a `Client`."""
    clock = Clock()
    made: list[PeerSocket] = []

    def connect(seconds: float) -> Any:
        made.append(PeerSocket(peer, clock))
        return made[-1]

    with Client(
        ADDRESS, connect=connect, seconds=clock.seconds, sleep=clock.advance, **options
    ) as client:
        try:
            result = call(client)
        except Exception as err:
            result = err
    assert all(each.is_closed for each in made)
    return result, clock.seconds()


class JumpingSelector(selectors.DefaultSelector):
    """In place of waiting, its time jumps to when the next timer is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen again"
            self.now += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on the time of a `JumpingSelector`."""

    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


class PeerTransport(asyncio.Transport):
    """A transport of asyncio to a `Peer`."""

    def __init__(self, peer: Peer, protocol: Any) -> None:
        super().__init__()
        self._connection = PeerConnection(peer)
        self._line = Line(peer)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self.is_aborted = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.is_aborted
        self._connection.take(data)
        self._loop.call_soon(self._answer)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._line

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            self._line.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _answer(self) -> None:
        found, self._connection.answers = self._connection.answers, b""
        for piece in (found[:5], found[5:]):
            if piece and not self.is_aborted:
                self._protocol.data_received(piece)
        if self._connection.is_lost:
            self.abort()


def asynchronous(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on an `AsyncClient`."""
    made: list[PeerTransport] = []

    async def connect(factory: Callable[[], Any]) -> Any:
        protocol = factory()
        made.append(PeerTransport(peer, protocol))
        return made[-1], protocol

    async def main() -> CallResult:
        time = asyncio.get_running_loop().time
        async with AsyncClient(ADDRESS, connect=connect, **options) as client:
            try:
                result = await call(client)
            except Exception as err:
                result = err
            took = time()
        return result, took

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        found = runner.run(main())
    assert all(each.is_aborted for each in made)
    return found


class PeerStringTransport(StringTransport):
    """A transport of Twisted's to a `Peer`."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._connection = PeerConnection(peer)
        self._line = Line(peer)
        self.is_aborted = False
        self.protocol: Any = None

    def fileno(self) -> int:
        return self._line.fileno()

    def write(self, data: bytes) -> None:
        self._connection.take(data)
        found, self._connection.answers = self._connection.answers, b""
        for piece in (found[:5], found[5:]):
            if piece:
                self.protocol.dataReceived(piece)
        if self._connection.is_lost:
            self.abortConnection()

    def abortConnection(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            self._line.close()
            self.protocol.connectionLost(Failure(ConnectionDone()))


@implementer(IStreamClientEndpoint)
class PeerEndpoint:
    """An endpoint of Twisted's that leads to a `Peer`.

    Attributes:
        transports: the connections that were made.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.transports: list[PeerStringTransport] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        try:
            transport = PeerStringTransport(self._peer)
        except OSError:
            return fail(ConnectionRefusedError())
        transport.protocol = factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        self.transports.append(transport)
        return succeed(transport.protocol)


def deferred(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on a `TwistedClient`."""
    clock = Clock()
    outcomes: list[Any] = []
    endpoint = PeerEndpoint(peer)
    client = TwistedClient(clock, ADDRESS, endpoint=endpoint, **options)
    call(client).addErrback(lambda failure: failure.value).addCallback(outcomes.append)
    while not outcomes:
        (due, *_) = sorted(timer.getTime() for timer in clock.getDelayedCalls())
        clock.advance(due - clock.seconds())
    took = clock.seconds()
    assert not clock.getDelayedCalls(), "every timer ends with its call"
    closed: list[None] = []
    client.close().addCallback(closed.append)
    assert closed
    assert all(each.is_aborted for each in endpoint.transports)
    return outcomes[0], took


FORMS = {"blocking": blocking, "asyncio": asynchronous, "Twisted": deferred}

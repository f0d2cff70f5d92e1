"""Connections of the Twisted form: its protocols, its timers, and how it connects."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IHandshakeListener, INegotiated, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.connection_pool import Turn
from batcher.client.errors import AnswerLost, ClientFailure, NotConnected
from batcher.client.http_exchange import ResponseReader, request_bytes
from batcher.client.pooled_calls import PooledCalls
from batcher.client.readiness import Readiness
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.retrying import CONNECT_TIMEOUT_S
from batcher.client.server_address import CurveKeys


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """A connection of the client's; one request at a time."""

    transport: Any

    def __init__(self, calls: TwistedCalls) -> None:
        self._calls = calls
        self._reader = ResponseReader()
        self._answer: Deferred[HttpResponse] | None = None
        self._is_open = False
        self._has_come: Readiness | None = None
        self._handshake: Deferred[_Connection] | None = None  # of TLS

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange allows another one."""
        return self._is_open and self._reader.is_reusable

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent.

        The socket is looked at, since a reactor that was busy has not told of the server's closing,
        or of bytes that nobody asked for, yet.
        """
        return self.is_reusable and not self._has_come

    def ready(self) -> _Connection | Deferred[_Connection]:
        """Return the connection, once its TLS is agreed upon if it has any."""
        return self if self._handshake is None else self._handshake

    def ask(self, request: HttpRequest) -> Deferred[HttpResponse]:
        """Send a request."""
        self._reader.expect()
        answer = self._answer = Deferred()
        self.transport.write(request_bytes(request, self._calls.options))
        return answer

    def abort(self) -> None:
        """End the connection now."""
        if self._is_open:
            self._is_open = False
            self.transport.abortConnection()

    def connectionMade(self) -> None:
        """Keep count, and the socket in view. Reactor thread, as the methods below."""
        self._is_open = True
        if INegotiated.providedBy(self.transport):
            self._handshake = Deferred(lambda _: self.abort())
        file = getattr(self.transport, "fileno", None)
        if file is not None:  # a transport of the caller's own need not have one
            self._has_come = Readiness(file())
        self._calls.open_connections.add(self)

    def handshakeCompleted(self) -> None:
        """Let requests be sent."""
        if self._handshake is not None and not self._handshake.called:
            self._handshake.callback(self)

    def dataReceived(self, data: bytes) -> None:
        """Read a piece of the response; bytes that nobody asked for end the connection."""
        answer = self._answer
        if answer is None or answer.called:
            self.abort()
            return
        try:
            response = self._reader.feed(data)
        except ClientFailure:
            answer.errback()
            return
        if response is not None:
            answer.callback(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the call with what has come."""
        self._is_open = False
        if self._handshake is not None and not self._handshake.called:
            self._handshake.errback(reason)
        response = self._reader.end()
        answer = self._answer
        if answer is not None and not answer.called:
            if response is not None:
                answer.callback(response)
            else:
                answer.errback(
                    AnswerLost(
                        "expected an answer; the connection broke: "
                        f"{reason.value or type(reason.value).__name__}"
                    )
                )
        self._calls.gone(self)


class _Factory(Factory):
    """Makes the connections of one client."""

    noisy = False

    def __init__(self, calls: TwistedCalls) -> None:
        self._calls = calls

    def buildProtocol(self, address: Any) -> _Connection:
        return _Connection(self._calls)


class TwistedCalls(PooledCalls[Any]):
    """The calls of one client, on one reactor."""

    def __init__(
        self,
        options: ClientOptions,
        connections: int,
        reactor: Any,
        endpoint: IStreamClientEndpoint | None,
    ) -> None:
        """Open at most so many connections."""
        super().__init__(options, connections)
        self._reactor = reactor
        self._endpoint = endpoint
        self.open_connections: set[Any] = set()
        self._closing: list[Deferred[None]] = []

    def gone(self, connection: Any) -> None:
        """Forget a connection that has ended."""
        self.open_connections.discard(connection)
        self.ended(connection)
        self._tell_closed()

    def closed(self) -> Deferred[None]:
        """End all connections, and fire once they have ended."""
        for connection in list(self.open_connections):
            connection.abort()
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        self._tell_closed()
        return closed

    def seconds(self) -> float:
        """Return the time of the reactor."""
        now: float = self._reactor.seconds()
        return now

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await deferLater(self._reactor, seconds)

    async def connect(self, seconds: float) -> Any:
        """Open a connection within so many seconds. Raises NotConnected."""
        assert self._endpoint is not None
        try:
            connecting: Deferred[Any] = self._endpoint.connect(_Factory(self))
            connecting.addCallback(_Connection.ready)
            connecting.addTimeout(seconds, self._reactor, _connected_too_late)
            connection: _Connection = await connecting
            return connection
        except CancelledError:
            raise
        except ConnectingCancelledError as err:
            raise CancelledError from err
        except Exception as err:
            raise NotConnected(
                f"expected a connection; got none: {err or type(err).__name__}"
            ) from err

    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function soon, on the reactor's thread. Any thread."""
        self._reactor.callFromThread(function, *arguments)

    def turn(self) -> tuple[Turn[Any], Deferred[None]]:
        """Return a turn, and what ends once the turn has come."""
        waiting: Deferred[None] = Deferred()
        return Turn(lambda: None if waiting.called else waiting.callback(None)), waiting

    def timer(self, attempts: Attempts[Any], waiting: Any) -> Any:
        """Fail `waiting` with `DeadlineExceeded` at the deadline."""
        seconds_left = attempts.seconds_left(self.seconds())
        if seconds_left == inf:
            return None
        return self._reactor.callLater(max(seconds_left, 0), _expire, waiting, attempts)

    def stop(self, timer: Any) -> None:
        """End a timer, whether it has run or not."""
        if timer is not None and timer.active():
            timer.cancel()

    def _tell_closed(self) -> None:
        if self.is_closed and not self.open_connections:
            while self._closing:
                self._closing.pop().callback(None)


class ZeromqTwistedCalls(TwistedCalls):
    """The calls of one client over ZeroMQ, on one reactor."""

    def __init__(
        self, options: ClientOptions, connections: int, reactor: Any, curve: CurveKeys | None
    ) -> None:
        """Open at most so many connections."""
        super().__init__(options, connections, reactor, None)
        self._curve = curve

    async def connect(self, seconds: float) -> Any:
        """Open a connection within so many seconds. Raises NotConnected."""
        # here, since only such an address needs the library
        from batcher.client.zeromq_twisted import TwistedZeromqConnection

        connection = TwistedZeromqConnection(self.options, self._curve, self._reactor, self.gone)
        self.open_connections.add(connection)
        try:
            return await connection.connected(seconds)
        except BaseException:
            connection.abort()
            raise


class TwistedSetup(NamedTuple):
    """How the calls of one client connect, whichever server they are to.

    Attributes:
        reactor: connects, and tells the time.
        connections: most connections at once to a server.
        endpoint: connects; None for one to the address.
        curve: keys for servers of ZeroMQ that ask for some.
    """

    reactor: Any
    connections: int
    endpoint: IStreamClientEndpoint | None
    curve: CurveKeys | None

    def calls(self, options: ClientOptions) -> TwistedCalls:
        """Return what makes the calls to one server, over HTTP or ZeroMQ as its address says."""
        reactor, connections = self.reactor, self.connections
        if options.address.endpoint:
            return ZeromqTwistedCalls(options, connections, reactor, self.curve)
        endpoint = self.endpoint or _endpoint(reactor, options)
        return TwistedCalls(options, connections, reactor, endpoint)


def _expire(waiting: Deferred[Any], attempts: Attempts[Any]) -> None:
    if not waiting.called:
        waiting.errback(attempts.expired())


def _connected_too_late(_: object, seconds: float) -> NoReturn:
    raise NotConnected(f"expected a connection within {seconds:g} s; got none")


def _endpoint(reactor: Any, options: ClientOptions) -> IStreamClientEndpoint:
    server = options.address
    plain = HostnameEndpoint(reactor, server.host, server.port, timeout=CONNECT_TIMEOUT_S)
    if not server.is_secure:
        return plain
    # here, since only an https address needs pyOpenSSL
    from twisted.internet.ssl import optionsForClientTLS

    return wrapClientTLS(optionsForClientTLS(server.host), plain)

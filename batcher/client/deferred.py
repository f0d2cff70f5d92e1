"""The Twisted form, on endpoints of the reactor that is handed in.

Cancelling a call's Deferred closes its connection, at any moment, and the server then drops the
request too.

Why no library sends the requests: treq and Twisted's Agent bound no connections in use, so 5,000
calls at once would open 5,000 of them, and a call costs several times what it costs here
(`benchmarks/clients.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IHandshakeListener, INegotiated, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

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
from batcher.client.retrying import CONNECT_TIMEOUT_S, RetryPolicy
from batcher.client.server_address import CurveKeys

Result = TypeVar("Result")


class TwistedClient:
    """A server to be asked, from the thread of the client's reactor.

    A call's Deferred fires with the result or fails with a `ClientFailure`. A call is repeated only
    if its request surely does not run twice. Cancelling the Deferred gives the call up. Connections
    are kept and used again until `close`.

    Args:
        reactor: connects, and tells the time.
        address: as for `Client`, and so are `timeout`, `retries` and `api_key`.
        timeout: seconds for a whole call.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to.
        endpoint: connects in place of the one to `address`, for another TLS setup or a Unix
            socket.
        curve: as for `Client`.
    """

    def __init__(
        self,
        reactor: Any,
        address: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        endpoint: IStreamClientEndpoint | None = None,
        curve: CurveKeys | None = None,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._options = checked_options(address, timeout, retries, api_key)
        self._reactor = reactor
        self._exchanges = _exchanges(self._options, connections, reactor, endpoint, curve)
        self._calls: set[Deferred[Any]] = set()

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> Deferred[InferResult]:
        """Run a model, and fire with its outputs. Reactor thread.

        The arguments are those of `Client.infer`; so are the `TypeError` and the `ValueError`,
        which this method raises at once.
        """
        operation = infer_operation(model, inputs, version, outputs, priority, request_id)
        return self._call(operation, timeout)

    def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> Deferred[dict[str, Any]]:
        """Fire with a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`."""
        return self._call(MetadataOperation(model_path(model, version)), timeout)

    def is_ready(self, *, timeout: float | None = None) -> Deferred[bool]:
        """Fire with whether every model of the server is ready; False also if nobody answers."""

        def unready(failure: Failure) -> bool:
            failure.trap(ClientFailure)
            return False

        ready = self._call(ReadyOperation(), timeout, RetryPolicy(0))
        return ready.addCallbacks(lambda _: True, unready)

    def wait_ready(self, timeout: float | None = None) -> Deferred[None]:
        """Fire once every model of the server is ready.

        The Deferred fails with the ClientFailure of the last attempt, if the time is over.
        """
        return self._call(ReadyOperation(), timeout, UNTIL_READY)

    def close(self) -> Deferred[None]:
        """Cancel the calls that have not ended, and fire once all connections are closed."""
        self._exchanges.close()
        for call in list(self._calls):
            call.cancel()
        return self._exchanges.closed()

    def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Deferred[Result]:
        attempts = self._options.attempts(operation, timeout, self._reactor.seconds(), policy)
        call = Deferred.fromCoroutine(self._exchanges.call(attempts))
        self._calls.add(call)
        return call.addBoth(self._ended, call)

    def _ended(self, result: Result, call: Deferred[Any]) -> Result:
        self._calls.discard(call)
        return result


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """A connection of the client's; one request at a time."""

    transport: Any

    def __init__(self, calls: _Exchanges) -> None:
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

    def __init__(self, calls: _Exchanges) -> None:
        self._calls = calls

    def buildProtocol(self, address: Any) -> _Connection:
        return _Connection(self._calls)


class _Exchanges(PooledCalls[Any]):
    """The calls of one client, on one reactor."""

    def __init__(
        self,
        options: ClientOptions,
        connections: int,
        reactor: Any,
        endpoint: IStreamClientEndpoint | None,
    ) -> None:
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
        now: float = self._reactor.seconds()
        return now

    async def sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)

    async def connect(self, seconds: float) -> Any:
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

    def turn(self) -> tuple[Turn[Any], Deferred[None]]:
        waiting: Deferred[None] = Deferred()
        return Turn(lambda: None if waiting.called else waiting.callback(None)), waiting

    def timer(self, attempts: Attempts[Any], waiting: Any) -> Any:
        seconds_left = attempts.seconds_left(self.seconds())
        if seconds_left == inf:
            return None
        return self._reactor.callLater(max(seconds_left, 0), _expire, waiting, attempts)

    def stop(self, timer: Any) -> None:
        if timer is not None and timer.active():
            timer.cancel()

    def _tell_closed(self) -> None:
        if self.is_closed and not self.open_connections:
            while self._closing:
                self._closing.pop().callback(None)


class _ZeromqExchanges(_Exchanges):
    """The calls of one client over ZeroMQ, on one reactor."""

    def __init__(
        self, options: ClientOptions, connections: int, reactor: Any, curve: CurveKeys | None
    ) -> None:
        super().__init__(options, connections, reactor, None)
        self._curve = curve

    async def connect(self, seconds: float) -> Any:
        # here, since only such an address needs the library
        from batcher.client.zeromq_twisted import TwistedZeromqConnection

        connection = TwistedZeromqConnection(self.options, self._curve, self._reactor, self.gone)
        self.open_connections.add(connection)
        try:
            return await connection.connected(seconds)
        except BaseException:
            connection.abort()
            raise


def _exchanges(
    options: ClientOptions,
    connections: int,
    reactor: Any,
    endpoint: IStreamClientEndpoint | None,
    curve: CurveKeys | None,
) -> _Exchanges:
    """Return what makes the calls, over HTTP or ZeroMQ as the address says."""
    if options.address.endpoint:
        return _ZeromqExchanges(options, connections, reactor, curve)
    return _Exchanges(options, connections, reactor, endpoint or _endpoint(reactor, options))


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

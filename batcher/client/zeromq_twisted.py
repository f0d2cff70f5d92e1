"""The Twisted form over ZeroMQ: a connection as `PooledCalls` has them, on any reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import zmq
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.client.attempts import ClientOptions
from batcher.client.errors import ClientFailure, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.server_address import CurveKeys
from batcher.client.zeromq import ZeromqExchange


@implementer(IReadDescriptor)
class _Reader:
    """Has the reactor watch a descriptor of the library."""

    def __init__(self, descriptor: int, look: Callable[[], object]) -> None:
        self.descriptor = descriptor
        self._look = look

    def fileno(self) -> int:
        return self.descriptor

    def doRead(self) -> None:
        self._look()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the descriptor closes with the library's socket."""

    def logPrefix(self) -> str:
        return "zeromq"


class TwistedZeromqConnection:
    """A connection of the client's; one request at a time. Reactor thread."""

    def __init__(
        self,
        options: ClientOptions,
        curve: CurveKeys | None,
        reactor: Any,
        ended: Callable[[TwistedZeromqConnection], object],
    ) -> None:
        """Begin to connect; `ended` is called when the connection has ended."""
        self._exchange = ZeromqExchange(options, curve)
        self._reactor = reactor
        self._ended = ended
        self._is_open = True
        self._waiting: Deferred[Any] | None = None
        sockets = self._exchange.socket, self._exchange.monitor
        self._readers = [_Reader(each.get(zmq.FD), self._advance) for each in sockets]
        for reader in self._readers:
            reactor.addReader(reader)

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange allows another one."""
        return self._is_open and self._exchange.is_reusable

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent; what has come meanwhile is looked at."""
        self._advance()
        return self.is_reusable

    def connected(self, seconds: float) -> Deferred[TwistedZeromqConnection]:
        """Fire with the connection once the server has let the client in."""
        waiting: Deferred[Any] = Deferred()
        self._waiting = waiting
        self._reactor.callLater(0, self._advance)
        waiting.addTimeout(seconds, self._reactor, _too_late)
        return waiting.addCallback(lambda _: self)

    def ask(self, request: HttpRequest) -> Deferred[HttpResponse]:
        """Send a request."""
        answer: Deferred[HttpResponse] = Deferred()
        self._waiting = answer
        self._exchange.send(request)
        # Sending may take note of what has come, and the descriptor stays silent.
        self._reactor.callLater(0, self._advance)
        return answer

    def abort(self) -> None:
        """End the connection now."""
        if self._is_open:
            self._is_open = False
            for reader in self._readers:
                self._reactor.removeReader(reader)
                reader.descriptor = -1
            self._exchange.close()
            self._ended(self)

    def _advance(self) -> None:
        if not self._is_open:
            return
        was_connected = self._exchange.is_connected
        try:
            response = self._exchange.advance()
        except ClientFailure as err:
            self.abort()
            self._fire(partial(_fail, err))
            return
        if response is not None or self._exchange.is_connected != was_connected:
            self._fire(lambda waiting: waiting.callback(response))

    def _fire(self, fire: Callable[[Deferred[Any]], object]) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            fire(waiting)


def _fail(error: ClientFailure, waiting: Deferred[Any]) -> None:
    waiting.errback(error)


def _too_late(_: object, seconds: float) -> Any:
    raise NotConnected(f"expected a connection within {seconds:g} s; got none")

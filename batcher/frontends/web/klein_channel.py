"""The channel that a twisted.web request writes its answer to.

The channel writes in turn: into the place that the request's exchange has in the order of answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request as WebRequest
from twisted.web.server import Site

from batcher.codecs.body_sink import BodySink
from batcher.codecs.content_coding import CodedBody
from batcher.frontends.web.http11.messages import Request
from batcher.frontends.web.http11.rendering import PREFIX
from batcher.frontends.web.http11.target import EVERYTHING, origin_form
from batcher.frontends.web.turns import AnswerTurn, TurnOrder

_HOP_BY_HOP = (b"connection",)
_UNDONE = (b"content-encoding", b"content-length", b"transfer-encoding")
"""Header fields that are no longer true of a body once the body has been read."""


class _UnparsedRequest(WebRequest):
    """A request whose query and cookies twisted.web does not parse.

    No route reads them there, and a hostile query or cookie would hold up the loop for 70 ms.
    """

    def __init__(self, channel: KleinChannel, target: bytes) -> None:
        """Answer into `channel`; `target` is that of the request, with its query."""
        untyped: Any = super()
        untyped.__init__(channel, parsePOSTFormSubmission=False)
        self._target = target

    def process(self) -> None:
        """Find the resource, now that the path is known, and let it answer."""
        self.uri = self._target
        untyped: Any = super()
        untyped.process()


class KleinChannel:
    """The channel of one request. Reactor thread.

    Attributes:
        site: where twisted.web looks for the resource.
        transport: twisted.web asks it for addresses; this object itself.
        started: whether anything was written.
    """

    def __init__(self, exchange: AnswerTurn, connection: TurnOrder, site: Site) -> None:
        """Write into `exchange` of `connection`."""
        self.site = site
        self.transport = self
        self.started = False
        self._exchange = exchange
        self._connection = connection
        self._request: WebRequest | None = None
        self._producer: Any = None
        self._pulls = False
        self._pulling = False

    def handle(self, request: Request) -> None:
        """Make a twisted.web request of `request` and let it be answered."""
        target = request.head.target
        # twisted.web would answer `*` itself, and say nothing of methods.
        target = b"/*" if target == EVERYTHING else origin_form(target)
        web: Any = _UnparsedRequest(self, target)
        self._request = web
        body, request.body = request.body, b""
        assert not isinstance(body, BodySink), "the fast connection calls routes with a sink"
        is_coded = isinstance(body, CodedBody)
        for name, value in request.headers.items():
            if name not in _UNDONE or (is_coded and name == b"content-encoding"):
                web.requestHeaders.addRawHeader(name, value)
        # twisted.web closes the file, whatever becomes of the exchange.
        web.content = BytesIO(body.sent if isinstance(body, CodedBody) else body)
        web.content.seek(0, 2)
        version = b"HTTP/1.0" if request.head.old else b"HTTP/1.1"
        web.requestReceived(request.head.method.encode(), target.partition(b"?")[0], version)

    def connection_lost(self, reason: Failure) -> None:
        """Tell the request that its client is gone."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self._request is not None:
            self._request.connectionLost(reason)
            self._request = None

    def pace(self, may_produce: bool) -> None:
        """Let the producer go on or not, as the client reads; it never goes on before its turn."""
        if self._producer is None:
            return
        if self._pulls:
            self._pull()
        elif may_produce and self._is_turn():
            self._producer.resumeProducing()
        else:
            self._producer.pauseProducing()

    # What twisted.web calls.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write the head of the answer."""
        lines = [
            b"%b: %b\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            if name.lower() not in _HOP_BY_HOP
            for value in values
        ]
        if isinstance(self._exchange.request, Request) and self._exchange.request.head.old:
            # Without a length, only the end of the connection tells where the answer ends.
            self._exchange.closes = not headers.hasHeader(b"Content-Length")
        connection = self._exchange.connection_header()
        if connection:
            lines.append(b"Connection: %b\r\n" % connection)
        self.write(b"%b%b %b\r\n%b\r\n" % (PREFIX, code, reason, b"".join(lines)))

    def write(self, data: bytes) -> None:
        """Write a piece of the answer."""
        self.started = True
        self._exchange.write(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Write pieces of the answer."""
        self.write(b"".join(pieces))

    def requestDone(self, request: WebRequest) -> None:
        """The answer is complete."""
        self._request = None
        self._exchange.finish()

    def loseConnection(self) -> None:
        """Give up the connection in the middle of an answer."""
        self._connection.abort()

    abortConnection = loseConnection

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let `producer` write, as fast as the client reads."""
        self._producer, self._pulls = producer, not streaming
        if self._pulls or not self._connection.may_produce or not self._is_turn():
            self.pace(self._connection.may_produce)

    def unregisterProducer(self) -> None:
        """The producer has nothing more."""
        self._producer = None

    def getPeer(self) -> IAddress:
        """Return the client's address."""
        return _address(self._connection.info("peername"))

    def getHost(self) -> IAddress:
        """Return our own address."""
        return _address(self._connection.info("sockname"))

    def isSecure(self) -> bool:
        """Return whether the connection is encrypted."""
        return self._connection.info("sslcontext") is not None

    def _is_turn(self) -> bool:
        return self._connection.turn is self._exchange

    def _pull(self) -> None:
        if self._pulling:
            return
        self._pulling = True
        while self._producer is not None and self._connection.may_produce and self._is_turn():
            self._producer.resumeProducing()
        self._pulling = False


def _address(name: Any) -> IAddress:
    if isinstance(name, tuple):
        kind = IPv6Address if ":" in str(name[0]) else IPv4Address
        address: IAddress = kind("TCP", name[0], name[1])
        return address
    return UNIXAddress(name or None)

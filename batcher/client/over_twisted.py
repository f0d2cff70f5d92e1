"""What the Twisted form puts between treq and Twisted's Agent.

Bodies in one piece both ways, and no compression.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

_ACCEPT = b"accept-encoding"


@implementer(IAgent)
class PlainAgent:
    """Asks for answers as they are, where treq, which wraps it, would have them compressed."""

    def __init__(self, agent: IAgent) -> None:
        """Ask by `agent`."""
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request. Reactor thread."""
        headers = headers.copy() if headers is not None else Headers()
        headers.setRawHeaders(_ACCEPT, [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer)


@implementer(IBodyProducer)
class WholeBody:
    """A request's body, written at once."""

    def __init__(self, body: bytes) -> None:
        """Send `body`."""
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it. Reactor thread."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All is written."""

    def resumeProducing(self) -> None:
        """All is written."""

    def stopProducing(self) -> None:
        """All is written."""


class _Collector(Protocol):
    """Fires its Deferred with the whole body; cancelling that closes the connection."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred(self._give_up)

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece."""
        self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Hand over what came; its length, where nothing else told it, is checked as it is read."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(reason)

    def _give_up(self, _: object) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def body_of(response: IResponse) -> Deferred[bytes]:
    """Fire with the body of `response`; cancelling it closes the connection. Reactor thread."""
    collector = _Collector()
    response.deliverBody(collector)
    return collector.whole


def was_cancelled(error: Exception) -> bool:
    """Return whether a request failed because it was cancelled, in one of the forms that Twisted gives that."""
    if isinstance(error, CancelledError | ConnectingCancelledError):
        return True
    reasons: list[Failure] = getattr(error, "reasons", [])
    return any(reason.check(CancelledError) for reason in reasons)

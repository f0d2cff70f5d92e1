"""What the Twisted form puts between treq and Twisted's Agent.

- Requests without compression, written in one piece (`UncompressedAgent`, `WholeBody`).
- Responses read whole, by a Deferred that can be cancelled (`body_of`).
- Twisted's errors as those of the client (`client_failures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

# RequestNotSent is there, but not in its module's __all__
from twisted.web.client import RequestNotSent, ResponseDone  # type: ignore[attr-defined]
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from batcher.client.errors import AnswerLost, NotConnected

_ACCEPT_ENCODING = b"accept-encoding"
_NOT_CONNECTED = (ConnectError, DNSLookupError, RequestNotSent)


@implementer(IAgent)
class UncompressedAgent:
    """Asks for uncompressed responses; treq, around this agent, would ask for compressed ones."""

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
        headers.setRawHeaders(_ACCEPT_ENCODING, [b"identity"])
        return self._agent.request(method, uri, headers, bodyProducer)


@implementer(IBodyProducer)
class WholeBody:
    """A request's body, written at once."""

    def __init__(self, body: bytes) -> None:
        """Send `body`."""
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body. Reactor thread."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: all is written."""

    def resumeProducing(self) -> None:
        """Do nothing: all is written."""

    def stopProducing(self) -> None:
        """Do nothing: all is written."""


class _Collector(Protocol):
    """Collects a body; `whole` fires with the body, and cancelling `whole` ends the connection."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.whole: Deferred[bytes] = Deferred(self._give_up)

    def dataReceived(self, data: bytes) -> None:
        """Keep a piece. Reactor thread."""
        self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Hand over the body, or the failure. Reactor thread."""
        if self.whole.called:
            return
        # PotentialDataLoss: no header told the length; reading the response checks the length
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(reason)

    def _give_up(self, _: object) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def body_of(response: IResponse) -> Deferred[bytes]:
    """Fire with the body of `response`; cancelling closes the connection. Reactor thread."""
    collector = _Collector()
    response.deliverBody(collector)
    return collector.whole


@contextmanager
def client_failures() -> Iterator[None]:
    """Turn Twisted's errors inside the block into those of the client.

    A cancelled request becomes a plain `CancelledError`, whichever form Twisted gives it.
    """
    try:
        yield
    except _NOT_CONNECTED as err:
        raise NotConnected(f"expected a connection; got none: {err}") from err
    except Exception as err:
        if _was_cancelled(err):
            raise CancelledError from err
        raise AnswerLost(
            f"expected an answer; the connection broke: {err or type(err).__name__}"
        ) from err


def _was_cancelled(error: Exception) -> bool:
    if isinstance(error, CancelledError | ConnectingCancelledError):
        return True
    # Twisted wraps the failures of a request in an error that lists them
    reasons: list[Failure] = getattr(error, "reasons", [])
    return any(reason.check(CancelledError) for reason in reasons)

"""What becomes of a whole message: an answer, an error, or nothing.

| message | what happens |
|---|---|
| without an id, or one with the id of notices | nothing; it is counted |
| too large, unreadable, for an unknown model | an answer that tells of the error |
| an id whose request is not answered yet | an answer that tells of the error |
| one request too many of a client | a 503 |
| `cancel` | the request with this id is dropped, and never answered |
| any other | an answer |

So each request ends once, unless its client has taken it back or has left.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from batcher.codecs.zeromq_calls import ID_BYTES, NOTICE_ID
from batcher.codecs.zeromq_messages import (
    CallMessage,
    CancelMessage,
    InferMessage,
    notice,
    read_header,
)
from batcher.core.bounded_cache import BoundedCache
from batcher.errors import BatcherError, HeadersTooLarge, InvalidInput, QueueFull, TooLarge
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.zeromq.calls import ROUTE_PREFIX, CallRequest, refusal
from batcher.frontends.zeromq.messages import MAX_PARTS, Incoming
from batcher.frontends.zeromq.peers import MAX_PEER_REQUESTS, Counts, Peer, Peers
from batcher.frontends.zeromq.request import Known, Parts
from batcher.frontends.zeromq.tensors import TensorAnswers, TensorRequest

MAX_KNOWN_BYTES: Final = 4 << 20
"""Bytes of headers that are known, with what they say: some thousand. Most clients send a few."""

_ONE_TIME: Final = (b"x-request-id", b"idempotency-key", b"x-route-key")
"""Fields that differ from request to request: a header with one is not kept."""


class Requests:
    """Answers messages. Reactor thread.

    Attributes:
        router: answers calls.
        known: what headers say, by their bytes without the id.
        last: when the last request came, in seconds on the clock.
    """

    def __init__(
        self, tensors: TensorAnswers, router: Router, peers: Peers, counts: Counts
    ) -> None:
        """Answer by `tensors` and `router`, to `peers`."""
        self.router = router
        self.known: BoundedCache[bytes, Known] = BoundedCache(MAX_KNOWN_BYTES)
        self.last = 0.0
        self._tensors = tensors
        self._peers = peers
        self._counts = counts
        self._seconds = tensors.log.seconds

    def take(self, message: Incoming) -> None:
        """Begin to answer a message."""
        header, peer = message.header, message.peer
        request_id = header[:ID_BYTES]
        if len(request_id) < ID_BYTES or request_id == NOTICE_ID:
            self._counts.ignored_messages += 1
            return
        began = self.last = self._seconds()
        if message.excess:
            self._refuse(_excess_error(message), peer, request_id, began)
            return
        known = message.known
        if known is None or known.is_over:
            known = self._read(header[ID_BYTES:], peer, request_id, began)
            if known is None:
                return
        if request_id in peer.calls or peer.is_full:
            self._refuse(_place_error(peer, request_id), peer, request_id, began)
            return
        answer = known.answer(message.parts, began, peer.address)
        peer.calls[request_id] = answer
        arguments = (peer, request_id, answer)
        answer.addCallbacks(self._answered, self._lost, arguments, errbackArgs=arguments)

    def closing(self, peer: Peer) -> None:
        """Tell a client that the server is about to end."""
        header = notice()
        self._peers.answer(peer, header[:ID_BYTES], [header[ID_BYTES:]])

    def refused(self, header: bytes) -> Parts:
        """Return the answer to a client that has chosen its identity, id included."""
        error = InvalidInput("routing id: expected none, so that each connection has its own")
        parts = self._tensors.failure(error, None, "", self._seconds(), "")
        return [header[:ID_BYTES] + bytes(parts[0])]

    def _read(self, data: bytes, peer: Peer, request_id: bytes, began: float) -> Known | None:
        """Return what a header says that has not come before; None if there is nothing to do."""
        message: Any = None
        try:
            message = read_header(data)
            if isinstance(message, CancelMessage):
                call = peer.calls.pop(request_id, None)
                if call is not None:
                    call.cancel()
                return None
            known = self._known_of(message)
        except Exception as err:
            self._refuse(err, peer, request_id, began, message)
            return None
        if not any(name in message.headers for name in _ONE_TIME):
            self.known.put(data, known, 4000 + 60 * len(data))
        return known

    def _known_of(self, message: InferMessage | CallMessage) -> Known:
        if isinstance(message, CallMessage):
            return CallRequest(message, self.router)
        return TensorRequest(message, self._tensors)

    def _refuse(
        self,
        error: Exception,
        peer: Peer,
        request_id: bytes,
        began: float,
        message: InferMessage | CallMessage | None = None,
    ) -> None:
        """Answer a request that ends before it has begun."""
        if isinstance(message, CallMessage):
            status, parts = refusal(error, message, self.router)
            log = self._tensors.log
            log.answered_rpc(ROUTE_PREFIX, "", status, began, lambda: peer.address)
        else:
            name = message.model if message is not None else ""
            sent_id = message.headers.get(b"x-request-id") if message is not None else None
            parts = self._tensors.failure(error, sent_id, name, began, peer.address)
        self._peers.answer(peer, request_id, parts)

    def _answered(self, parts: Parts, peer: Peer, request_id: bytes, answer: Any) -> None:
        # One that was taken back is no longer there, and its id may be another's by now.
        if peer.calls.get(request_id) is answer:
            del peer.calls[request_id]
            self._peers.answer(peer, request_id, parts)

    def _lost(self, failure: Failure, peer: Peer, request_id: bytes, answer: Any) -> None:
        """Answer in any case but that of a request that was taken back, which is counted already.

        Every error is an answer before: what comes here is a fault of our own.
        """
        error = failure.value
        if not isinstance(error, CancelledError) and error is not None:
            parts = self._tensors.failure(error, None, "", self._seconds(), peer.address)
            self._answered(parts, peer, request_id, answer)


def _excess_error(message: Incoming) -> BatcherError:
    """Return the error of a message that has too much of something."""
    if message.excess == "header":
        return HeadersTooLarge(f"header: expected fewer bytes; got {message.nbytes}")
    return TooLarge(
        f"message: expected at most {MAX_PARTS} parts behind the header, and bytes within "
        f"max_body_bytes; got {message.nbytes} bytes"
    )


def _place_error(peer: Peer, request_id: bytes) -> BatcherError:
    """Return why a client may not ask a request with this id now."""
    if request_id in peer.calls:
        return InvalidInput("id: expected one that no unanswered request has; got another's")
    return QueueFull(f"expected at most {MAX_PEER_REQUESTS} requests of one client at a time")

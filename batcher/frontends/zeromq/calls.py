"""A call of HTTP's routes by ZeroMQ: the same endpoint answers it, in the same words.

The header names path, method and header fields, and the parts behind the header are the body, one
behind the other. So whatever HTTP answers at `GET`, and every inference by `POST`, is there in the
same formats: pictures, JSON, metadata, readiness. What changes the server or takes long uploads is
HTTP's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer
from batcher.codecs.joining import joined
from batcher.codecs.zeromq_messages import CallMessage, reply_header
from batcher.core.error_text import brief
from batcher.errors import NotServed, UnknownRoute, UnsupportedMediaType
from batcher.frontends.endpoints.call import Call, CallHead, Reply
from batcher.frontends.endpoints.failures import failure_reply_on
from batcher.frontends.endpoints.routing import Match, Router
from batcher.frontends.zeromq.request import SMALL_BYTES, Parts

ROUTE_PREFIX = "zeromq:"
"""What stands before the pattern of a route in metrics and in the access log."""


class CallRequest:
    """How to answer all calls that have one header. Reactor thread."""

    __slots__ = ("_head", "_route", "_router", "is_over", "is_small")

    def __init__(self, message: CallMessage, router: Router) -> None:
        """Find the route of `message`; raises UnknownRoute or UnsupportedMediaType."""
        route, arguments = _match(message, router)
        headers = message.headers
        if b"content-encoding" in headers:
            raise UnsupportedMediaType(
                "content-encoding: expected none over ZeroMQ; got "
                f"{brief(headers[b'content-encoding'], 60)}"
            )
        marks = router.marks(headers)
        self._router = router
        self._route = replace(route, pattern=ROUTE_PREFIX + route.pattern)
        where = (message.method, message.path, arguments, message.query)
        self._head = CallHead(*where, headers, marks)
        self.is_over = False  # endpoints look themselves whether models have changed
        self.is_small = False

    def answer(self, parts: Sequence[Buffer], began: float, address: str) -> Deferred[Parts]:
        """Answer one call, as `Known` says."""
        body = parts[0] if len(parts) == 1 else joined(parts)
        self.is_small = len(body) <= SMALL_BYTES  # the next one is mostly as long
        call = Call(self._head, body, began, f"{address}:0" if address else "")
        return self._router.answer(self._route, call, self._parts_of)

    def _parts_of(self, reply: Reply) -> Parts:
        if reply.file is not None:
            error = NotServed("expected a route whose answer is no file: HTTP alone sends files")
            reply = self._router.failure_reply(error, self._route, self._head)
        return reply_parts(reply)


def _match(message: CallMessage, router: Router) -> Match:
    # Routes that are not fast take uploads, or load and unload models, unless they are read alone.
    found = router.match(message.method, message.path)
    if found is None and message.method == "GET":
        found = router.find(message.method, message.path)
    if found is None or found[0].sink is not None:
        raise UnknownRoute(
            f"expected a route that ZeroMQ has; got {message.method} {brief(message.path, 200)}"
        )
    return found


def reply_parts(reply: Reply) -> Parts:
    """Return a reply as the parts of an answer."""
    fields = {name.decode().lower(): value.decode("latin-1") for name, value in reply.headers}
    fields["content-type"] = reply.content_type.decode()
    return [reply_header(reply.status, fields), reply.body]


def refusal(error: Exception, message: CallMessage, router: Router) -> tuple[int, Parts]:
    """Return status and parts of the answer to a call that `error` has ended before its route."""
    reply = failure_reply_on(message.path)(error, message.headers, router.disclosure)
    return reply.status, reply_parts(reply)

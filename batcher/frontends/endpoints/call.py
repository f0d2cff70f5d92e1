"""A request and a reply of HTTP, as values that no framework owns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.api_key import named_key

Headers = Mapping[bytes, bytes]
"""Header fields by lower-case name; repeated fields are joined by commas."""

Body = bytes | memoryview


class CallHead:
    """Everything of a request but its body.

    Calls that are alike share one, whatever connection they come from.

    Attributes:
        method: `GET`, `POST`, …
        path: the target's path as it was sent, without the query.
        arguments: what the route's pattern captured, percent-decoded.
        query: the target behind the question mark, as it was sent.
        headers: header fields.
        request_id: `X-Request-Id`, None if there is none.
        plan: what an endpoint worked out from all this, kept here for the next call; makes replies
            of its results.
    """

    __slots__ = ("arguments", "headers", "method", "path", "plan", "query", "request_id")

    def __init__(
        self, method: str, path: str, arguments: Mapping[str, str], query: str, headers: Headers
    ) -> None:
        """Store the attributes; but for `plan` they do not change."""
        self.method = method
        self.path = path
        self.arguments = arguments
        self.query = query
        self.headers = headers
        self.request_id = headers.get(b"x-request-id")
        self.plan: Any = None

    def header(self, name: bytes) -> str:
        """Return a header's value as text, empty if it is absent."""
        return self.headers.get(name, b"").decode("latin-1")

    def key(self) -> str:
        """Return the key whose quota the request is charged to, empty if it names none."""
        return named_key(self.header(b"x-api-key"), self.header(b"authorization"))


class Call:
    """A whole request.

    Attributes:
        head: everything but the body.
        body: the body, content coding undone; empty once its endpoint has returned, which has taken
            what it needs of it.
        size: bytes of the body.
        began: when its first byte came, in seconds on the server's clock.
        peer: the client's address, for the log.
        plan: what its endpoint answers it by, which the head may have exchanged for a newer one
            meanwhile.
    """

    __slots__ = ("began", "body", "head", "peer", "plan", "size")

    def __init__(self, head: CallHead, body: Body, began: float, peer: str) -> None:
        """Store the attributes."""
        self.head = head
        self.body = body
        self.size = len(body)
        self.began = began
        self.peer = peer
        self.plan: Any = None


@final
class Reply:
    """A whole answer.

    Attributes:
        status: HTTP status.
        content_type: of the body.
        body: bytes to write.
        headers: further header fields.
        model: the model that answered, for metrics; empty where none did.
    """

    __slots__ = ("body", "content_type", "headers", "model", "status")

    def __init__(
        self,
        status: int,
        content_type: bytes,
        body: Body,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        model: str = "",
    ) -> None:
        """Store the attributes; they do not change."""
        self.status = status
        self.content_type = content_type
        self.body = body
        self.headers = headers
        self.model = model


Endpoint = Callable[[Call], Deferred[Any]]
"""Answers a call with a Deferred of a Reply, or of a result that `reply` of the call's plan makes a
Reply of. One callback less on each request's Deferred is a microsecond less.
"""

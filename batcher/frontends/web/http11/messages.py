"""What a reader makes of a connection's bytes."""

from __future__ import annotations

from typing import NamedTuple, final

from batcher.codecs.body_sink import BodySink
from batcher.codecs.content_coding import Body
from batcher.errors import BatcherError


class RequestHead:
    """Everything of a request but its body.

    Shared by the repetitions of a request on its connection.

    Attributes:
        method: `GET`, `POST`, …
        target: the request target, as the client sent it.
        path: the path of the target, still percent-encoded.
        query: the target behind its question mark.
        headers: header fields by lower-case name, repeated ones joined by commas.
        keep_alive: whether the connection may carry another request.
        old: whether the request is HTTP/1.0.
        match: the route that an exchange found for the head, kept for the next repetition.
    """

    __slots__ = ("headers", "keep_alive", "match", "method", "old", "path", "query", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        path: str,
        query: str,
        headers: dict[bytes, bytes],
        keep_alive: bool,
        old: bool,
    ) -> None:
        """Store the attributes; but for `match` they do not change."""
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.old = old
        self.match: object = None


@final
class Request:
    """A whole request.

    Attributes:
        head: everything but the body.
        body: content coding undone, unless the body is large; empty once an exchange has taken it.
        began: time in seconds at which the first byte of the request came.
    """

    __slots__ = ("began", "body", "head")

    def __init__(self, head: RequestHead, body: Body, began: float) -> None:
        """Store the attributes; but for `body` they do not change."""
        self.head = head
        self.body = body
        self.began = began

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The head's header fields."""
        return self.head.headers


@final
class Continue(NamedTuple):
    """The client waits for `100 Continue` before it sends the body."""


@final
class Refusal(NamedTuple):
    """The rest of the connection cannot be read; answer `error` and close.

    Attributes:
        error: the answer to send before the connection closes.
        headers: header fields that were read before the error.
        began: time in seconds at which the request began.
        target: the part of the request target that was read.
        method: the request's method, empty if not even that was read.
    """

    error: BatcherError
    headers: dict[bytes, bytes]
    began: float
    target: bytes = b""
    method: str = ""


Event = Request | Continue | Refusal


def size_of(event: Request | Refusal) -> int:
    """Return the bytes of the body that `event` keeps in memory; a sink's are on their way out."""
    if type(event) is not Request or isinstance(event.body, BodySink):
        return 0
    return len(event.body)

"""What a reader makes of a connection's bytes."""

from __future__ import annotations

from typing import NamedTuple, final

from batcher.errors import BatcherError


class RequestHead:
    """Everything of a request but its body.

    Shared by the repetitions of a request on its connection.

    Attributes:
        method: `GET`, `POST`, …
        target: as it was sent.
        path: the path in it, as it was sent.
        query: the query in it.
        headers: by lower-case name, repeated ones joined by commas.
        keep_alive: whether the connection may serve another one.
        old: whether it is HTTP/1.0.
        found: what an exchange found out about its route, kept here for the next repetition.
    """

    __slots__ = ("found", "headers", "keep_alive", "method", "old", "path", "query", "target")

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
        """Store the attributes; but for `found` they do not change."""
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.old = old
        self.found: object = None


@final
class Request:
    """A whole request.

    Attributes:
        head: everything but the body.
        body: content coding undone; empty once an exchange has taken it.
        began: when its first byte came, in seconds.
        late: whether it began when the server was already being stopped.
    """

    __slots__ = ("began", "body", "head", "late")

    def __init__(
        self, head: RequestHead, body: bytes | memoryview, began: float, late: bool
    ) -> None:
        """Store the attributes; but for `body` they do not change."""
        self.head = head
        self.body = body
        self.began = began
        self.late = late

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

    `headers` and `target` are what came of them.
    """

    error: BatcherError
    headers: dict[bytes, bytes]
    began: float
    target: bytes = b""


Event = Request | Continue | Refusal


def size_of(event: Request | Refusal) -> int:
    """Return the bytes of the body that `event` carries."""
    return len(event.body) if type(event) is Request else 0

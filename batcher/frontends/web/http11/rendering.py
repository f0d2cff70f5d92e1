"""A reply as the bytes of an HTTP/1.1 answer.

Heads that repeat are kept. Every answer has the same STANDARD_FIELDS, which are a part of the head
that is kept. Any other header that nobody asked for would cost each answer time.
"""

from __future__ import annotations

from functools import lru_cache
from http.client import responses

from batcher.frontends.endpoints.call import Reply

PREFIX = b"HTTP/1.1 "
"""What every answer starts with, to HTTP/1.0 clients too."""

STANDARD_FIELDS = (
    (b"Server", b"batcher"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
)
"""Header fields of every answer.

- `Server` names the program, without a version, since a version tells a stranger what to try.
- `no-store`: an answer is true at one moment for one client, and no cache on the way may keep it.
- `nosniff`: no browser may take a body that repeats a client's words for a page with scripts.
"""

_STANDARD_LINES = b"".join(b"%b: %b\r\n" % field for field in STANDARD_FIELDS)

CONTINUE = PREFIX + b"100 Continue\r\n\r\n"

NO_CONTENT = 204
"""A status whose answer has no body, and must not name a length."""

_UNKNOWN_PHRASE = "Unknown"  # of a status that no list has, as a model's own error may have


@lru_cache(maxsize=1024)
def _head(status: int, content_type: bytes, length: int) -> bytes:
    start = b"%b%d %b\r\n%b" % (
        PREFIX,
        status,
        responses.get(status, _UNKNOWN_PHRASE).encode(),
        _STANDARD_LINES,
    )
    if status == NO_CONTENT:
        return b"%b\r\n" % start
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (start, content_type, length)


LARGE_BODY_BYTES = 1 << 18
"""Bytes of a view from which it is written by itself: behind its head it would be copied."""


def render(reply: Reply, connection: bytes = b"") -> bytes:
    """Return the answer's bytes.

    `connection` is the value of the `Connection` header, empty for none.
    """
    return render_head(reply, connection) + reply.body


def render_head(reply: Reply, connection: bytes = b"") -> bytes:
    """Return the answer's bytes without those of its body."""
    head = _head(reply.status, reply.content_type, len(reply.body))
    if reply.headers or connection:
        fields = (*reply.headers, (b"Connection", connection)) if connection else reply.headers
        head = b"%b%b\r\n" % (head[:-2], b"".join([b"%b: %b\r\n" % field for field in fields]))
    return head

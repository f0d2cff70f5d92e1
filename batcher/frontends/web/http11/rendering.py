"""A reply as the bytes of an HTTP/1.1 answer.

An answer has no header that nobody asked for, since each costs time. Heads that repeat are kept.
"""

from __future__ import annotations

from functools import lru_cache
from http.client import responses

from batcher.frontends.endpoints.call import Reply

PREFIX = b"HTTP/1.1 "
"""What every answer starts with, to HTTP/1.0 clients too."""

CONTINUE = PREFIX + b"100 Continue\r\n\r\n"

NO_CONTENT = 204
"""A status whose answer has no body, and must not name a length."""

_UNKNOWN_PHRASE = "Unknown"  # of a status that no list has, as a model's own error may have


@lru_cache(maxsize=1024)
def _head(status: int, content_type: bytes, length: int) -> bytes:
    start = b"%b%d %b\r\n" % (PREFIX, status, responses.get(status, _UNKNOWN_PHRASE).encode())
    if status == NO_CONTENT:
        return b"%b\r\n" % start
    return b"%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (start, content_type, length)


def render(reply: Reply, connection: bytes = b"") -> bytes:
    """Return the answer's bytes.

    `connection` is the value of the `Connection` header, empty for none.
    """
    body = reply.body
    head = _head(reply.status, reply.content_type, len(body))
    if reply.headers or connection:
        fields = (*reply.headers, (b"Connection", connection)) if connection else reply.headers
        head = b"%b%b\r\n" % (head[:-2], b"".join([b"%b: %b\r\n" % field for field in fields]))
    return head + body

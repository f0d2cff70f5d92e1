"""A reply as the bytes of an HTTP/1.1 answer.

An answer has no header that nobody asked for, since each costs time. Heads that repeat are kept.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from batcher.frontends.endpoints.call import Reply

PREFIX = b"HTTP/1.1 "
"""What every answer starts with, to HTTP/1.0 clients too."""

CONTINUE = PREFIX + b"100 Continue\r\n\r\n"


@lru_cache(maxsize=1024)
def _head(status: int, content_type: bytes, length: int) -> bytes:
    phrase = HTTPStatus(status).phrase.encode()
    return b"%b%d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (
        PREFIX,
        status,
        phrase,
        content_type,
        length,
    )


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

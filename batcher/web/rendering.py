"""A reply as the bytes of an HTTP/1.1 answer. Nothing is put into it that was not asked for; what repeats is prebuilt."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from batcher.endpoints.call import Reply

PREFIX = b"HTTP/1.1 "
"""What every answer starts with, to HTTP/1.0 clients too."""

CONTINUE = PREFIX + b"100 Continue\r\n\r\n"


@lru_cache(maxsize=1024)
def _start(status: int, content_type: bytes) -> bytes:
    phrase = HTTPStatus(status).phrase.encode()
    return b"%b%d %b\r\nContent-Type: %b\r\nContent-Length: " % (PREFIX, status, phrase, content_type)


def render(reply: Reply, connection: bytes = b"") -> bytes:
    """Return the answer's bytes; `connection` is the value of the `Connection` header, empty for none."""
    extra = b"".join([b"\r\n%b: %b" % header for header in reply.headers]) if reply.headers else b""
    if connection:
        extra += b"\r\nConnection: " + connection
    return b"".join((_start(reply.status, reply.content_type), b"%d" % len(reply.body), extra, b"\r\n\r\n", reply.body))

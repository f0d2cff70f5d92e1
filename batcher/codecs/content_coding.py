"""Undoing gzip and deflate while a request body arrives, never beyond the body's limit.

A few kilobytes of gzip can stand for gigabytes. The decompressor therefore gives at most as many
bytes as the limit still allows, and one byte more; the body is refused at that byte, whatever
length the head declared.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from batcher.errors import DecodingError, TooLarge, UnsupportedMediaType

MAX_GZIP_STREAMS = 4096
"""Most streams that one gzip body may have: a flood of empty streams would cost time for nothing.
"""

# zlib's own way to name a container: by the sign and the size of `wbits`
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class BodyDecoder(Protocol):
    """Takes a coded body in pieces and gives the plain bytes, up to a limit."""

    def feed(self, piece: bytes) -> bytes:
        """Return the plain bytes of `piece`. Raises TooLarge or DecodingError."""

    def finish(self) -> None:
        """Check that the body ended where its coding ends. Raises DecodingError."""


class Identity:
    """A body without a coding: its bytes are only counted."""

    def __init__(self, limit: int) -> None:
        """Allow at most `limit` bytes."""
        self._limit = limit
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """Return `piece`.

        Raises:
            TooLarge: the body is over the limit.
        """
        self._size += len(piece)
        if self._size > self._limit:
            raise too_large(self._limit)
        return piece

    def finish(self) -> None:
        """Accept the end: nothing can be missing."""


class Inflate:
    """A body in gzip or in deflate.

    Gzip may have several streams, one behind the other (RFC 1952). Deflate is a zlib stream
    (RFC 1950), or the raw form that some clients send.
    """

    def __init__(self, coding: str, limit: int) -> None:
        """Undo `coding` (`gzip` or `deflate`) up to `limit` bytes."""
        self._coding = coding
        self._limit = limit
        self._size = 0
        self._inflate: Any = zlib.decompressobj(_GZIP) if coding == "gzip" else None
        self._streams = 1

    def feed(self, piece: bytes) -> bytes:
        """Return the plain bytes of `piece`.

        Raises:
            TooLarge: the plain body is over the limit.
            DecodingError: the bytes are not in this coding.
        """
        out = []
        while piece:
            inflate = self._stream(piece)
            try:
                # one byte over the limit is enough to know
                part = inflate.decompress(piece, self._limit - self._size + 1)
            except zlib.error as err:
                raise DecodingError(
                    f"body: expected {self._coding}; got bytes that are not: {err}"
                ) from err
            self._size += len(part)
            if self._size > self._limit:
                raise too_large(self._limit, " after decompression")
            out.append(part)
            piece = inflate.unused_data
        return b"".join(out)

    def _stream(self, piece: bytes) -> Any:
        """Return the stream that `piece` belongs to: the current one, or a new one at its end."""
        if self._inflate is None:
            # a zlib stream names its method, 8, in the first byte
            self._inflate = zlib.decompressobj(_ZLIB if piece[0] & 0x0F == 8 else _RAW)
        elif self._inflate.eof:
            self._streams += 1
            if self._coding != "gzip" or self._streams > MAX_GZIP_STREAMS:
                expected = (
                    f"at most {MAX_GZIP_STREAMS} gzip streams"
                    if self._coding == "gzip"
                    else "one deflate stream"
                )
                raise DecodingError(f"body: expected {expected}; got bytes behind the end")
            self._inflate = zlib.decompressobj(_GZIP)
        return self._inflate

    def finish(self) -> None:
        """Check that the stream reached its end.

        Raises:
            DecodingError: the stream was cut off.
        """
        if self._inflate is None or not self._inflate.eof:
            raise DecodingError(
                f"body: expected a whole {self._coding} stream; got one that is cut off"
            )


def too_large(limit: int, when: str = "") -> TooLarge:
    """Return the error for a body over `limit` bytes."""
    return TooLarge(f"body: expected at most {limit} bytes{when}; got more")


def body_decoder(content_encoding: str, limit: int) -> BodyDecoder:
    """Return the decoder for a `Content-Encoding`, which gives up to `limit` plain bytes.

    Raises:
        UnsupportedMediaType: the coding is unknown, or there are several codings.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return Identity(limit)
    if coding in ("gzip", "x-gzip", "deflate"):
        return Inflate("deflate" if coding == "deflate" else "gzip", limit)
    raise UnsupportedMediaType(
        f"Content-Encoding: expected gzip, deflate or identity; got {content_encoding!r}"
    )

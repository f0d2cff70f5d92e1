"""Undoing gzip and deflate while a body arrives, never beyond its limit.

A few kilobytes of gzip can stand for gigabytes. The decompressor therefore produces at most what
the limit still allows, and a body is refused at the first byte over it, whatever its declared
length.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from batcher.errors import DecodingError, TooLarge, UnsupportedMediaType

MEMBERS = 4096
"""Most streams that a gzip body may be made of.

A flood of empty ones would cost time and give nothing.
"""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class BodyDecoder(Protocol):
    """Takes a body in pieces, gives it back without its coding, and knows when it is too much."""

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` stands for. Raises TooLarge or DecodingError."""

    def finish(self) -> None:
        """Check that the body ended where its coding says. Raises DecodingError."""


class Identity:
    """A body without a coding: only counted."""

    def __init__(self, limit: int) -> None:
        """Allow at most `limit` bytes."""
        self._limit = limit
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        """Return `piece`.

        Raises:
            TooLarge: the body is over its limit.
        """
        self._size += len(piece)
        if self._size > self._limit:
            raise too_large(self._limit)
        return piece

    def finish(self) -> None:
        """Nothing can be missing."""


class Inflate:
    """A body in gzip, of one stream or several (RFC 1952), or in deflate (RFC 1950, or the raw form that some clients send)."""

    def __init__(self, coding: str, limit: int) -> None:
        """Undo `coding` (`gzip` or `deflate`) up to `limit` bytes."""
        self._coding = coding
        self._limit = limit
        self._size = 0
        self._inflate: Any = zlib.decompressobj(_GZIP) if coding == "gzip" else None
        self._members = 1

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` stands for.

        Raises:
            TooLarge: more than the limit would come out.
            DecodingError: the bytes are not in this coding.
        """
        out = []
        while piece:
            inflate = self._stream(piece)
            try:
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
        """Return what takes `piece`: the stream that is not at its end, or the next one."""
        if self._inflate is None:
            self._inflate = zlib.decompressobj(_ZLIB if piece[0] & 0x0F == 8 else _RAW)
        elif self._inflate.eof:
            self._members += 1
            if self._coding != "gzip" or self._members > MEMBERS:
                expected = (
                    f"at most {MEMBERS} gzip streams"
                    if self._coding == "gzip"
                    else "one deflate stream"
                )
                raise DecodingError(f"body: expected {expected}; got bytes behind the end")
            self._inflate = zlib.decompressobj(_GZIP)
        return self._inflate

    def finish(self) -> None:
        """Check that the stream reached its end.

        Raises:
            DecodingError: it was cut off.
        """
        if self._inflate is None or not self._inflate.eof:
            raise DecodingError(
                f"body: expected a whole {self._coding} stream; got one that is cut off"
            )


def too_large(limit: int, when: str = "") -> TooLarge:
    """Return the error for a body over `limit` bytes."""
    return TooLarge(f"body: expected at most {limit} bytes{when}; got more")


def body_decoder(content_encoding: str, limit: int) -> BodyDecoder:
    """Return what undoes `content_encoding`, the header's value, up to `limit` bytes.

    Raises:
        UnsupportedMediaType: the coding is unknown, or several are stacked.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return Identity(limit)
    if coding in ("gzip", "x-gzip", "deflate"):
        return Inflate("deflate" if coding == "deflate" else "gzip", limit)
    raise UnsupportedMediaType(
        f"Content-Encoding: expected gzip, deflate or identity; got {content_encoding!r}"
    )

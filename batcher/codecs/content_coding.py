"""Undoing gzip and deflate while a body arrives, never beyond its limit.

A few kilobytes of gzip can stand for gigabytes. The decompressor therefore produces at most what the limit still allows,
and a body is refused at the first byte over it, whatever its declared length.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from batcher.errors import DecodingError, TooLarge, UnsupportedMediaType

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
    """A body in gzip, or in deflate (the zlib form of RFC 1950, or the raw form that some clients send)."""

    def __init__(self, coding: str, limit: int) -> None:
        """Undo `coding` (`gzip` or `deflate`) up to `limit` bytes."""
        self._coding = coding
        self._limit = limit
        self._size = 0
        self._inflate = zlib.decompressobj(_GZIP) if coding == "gzip" else None

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` stands for.

        Raises:
            TooLarge: more than the limit would come out.
            DecodingError: the bytes are not in this coding.
        """
        if not piece:
            return b""
        if self._inflate is None:
            self._inflate = zlib.decompressobj(_ZLIB if piece[0] & 0x0F == 8 else _RAW)
        try:
            out = self._inflate.decompress(piece, self._limit - self._size + 1)
        except zlib.error as err:
            raise DecodingError(f"body: expected {self._coding}; got bytes that are not: {err}") from err
        self._size += len(out)
        if self._size > self._limit:
            raise too_large(self._limit, " after decompression")
        if self._inflate.unused_data:
            raise DecodingError(f"body: expected one {self._coding} stream; got bytes behind its end")
        return out

    def finish(self) -> None:
        """Check that the stream reached its end.

        Raises:
            DecodingError: it was cut off.
        """
        if self._inflate is None or not self._inflate.eof:
            raise DecodingError(f"body: expected a whole {self._coding} stream; got one that is cut off")


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
    raise UnsupportedMediaType(f"Content-Encoding: expected gzip, deflate or identity; got {content_encoding!r}")

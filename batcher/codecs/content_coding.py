"""Undoing gzip and deflate, never beyond the body's limit.

A few kilobytes of gzip can stand for gigabytes. The decompressor therefore gives at most as many
bytes as the limit still allows, and one byte more; the body is refused at that byte, whatever
length the head declared.

A small body is inflated while it arrives. A body that gives more than `HEAVY_BYTES` would take
long: its pieces are kept as they were sent, in a `CodedBody`, and whoever decodes the body inflates
it, away from the loop.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from sys import getsizeof
from typing import Any, Protocol, final

from batcher.codecs.arriving_body import ArrivingBody
from batcher.codecs.body_sink import BodySink
from batcher.errors import DecodingError, TooLarge, UnsupportedMediaType

MAX_GZIP_STREAMS = 4096
"""Most streams that one gzip body may have: a flood of empty streams would cost time for nothing.
"""

HEAVY_BYTES = 1 << 18
"""Bytes of a plain body from which the loop leaves inflating, and the reading of text, to others.

Up to there both take a few milliseconds at most; the way to another process and back takes one.
"""

_PART_BYTES = 1 << 20
"""Most bytes that are inflated at once: more would be in memory twice."""

_PIECE_BYTES = 1 << 14
"""Most bytes that go to the decompressor at once. What a stream leaves over is copied for the next
stream; with large pieces, a body of short streams would be copied thousands of times.
"""

CODING_OVERHEAD_BYTES = 1 << 20
"""Bytes by which a body may be larger in its coding than plain: heads of 4,096 gzip streams, and
five bytes for each block that could not be made smaller.
"""

# zlib's own way to name a container: by the sign and the size of `wbits`
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Identity:
    """A body without a coding, in several pieces."""

    def __init__(self, limit: int, is_exact: bool = False) -> None:
        """Allow at most `limit` bytes, which the body has if `is_exact`."""
        self._limit = limit
        self._body = ArrivingBody(limit if is_exact else 0)

    @property
    def held(self) -> int:
        """Bytes of memory that the body takes so far."""
        return self._body.held

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body.

        Raises:
            TooLarge: the body is over the limit.
        """
        if len(self._body) + len(piece) > self._limit:
            raise too_large(self._limit)
        self._body.append(piece)

    def finish(self) -> memoryview:
        """Return the body: nothing can be missing."""
        body, self._body = self._body, ArrivingBody()
        return body.whole()


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
        """Return the plain bytes of `piece`; raises as `parts` does."""
        return b"".join(self.parts(piece))

    def parts(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Yield the plain bytes of `piece`, in parts of at most `_PART_BYTES`.

        Raises:
            TooLarge: the plain body is over the limit.
            DecodingError: the bytes are not in this coding.
        """
        for start in range(0, len(piece), _PIECE_BYTES):
            yield from self._parts(piece[start : start + _PIECE_BYTES])

    def _parts(self, piece: bytes | memoryview) -> Iterator[bytes]:
        while piece:
            inflate = self._stream(piece)
            try:
                # one byte over the limit is enough to know
                part = inflate.decompress(piece, min(self._limit - self._size + 1, _PART_BYTES))
            except zlib.error as err:
                raise DecodingError(
                    f"body: expected {self._coding}; got bytes that are not: {err}"
                ) from err
            self._size += len(part)
            if self._size > self._limit:
                raise too_large(self._limit, " after decompression")
            yield part
            piece = inflate.unconsumed_tail or inflate.unused_data

    def _stream(self, piece: bytes | memoryview) -> Any:
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


@final
class CodedBody:
    """A whole body in the coding in which it was sent, since its plain bytes are many.

    Attributes:
        sent: the body as it was sent.
    """

    __slots__ = ("_coding", "_limit", "sent")

    def __init__(self, coding: str, limit: int, sent: memoryview) -> None:
        """Hold `sent`, which stands for at most `limit` plain bytes."""
        self._coding = coding
        self._limit = limit
        self.sent = sent

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the body be pickled."""
        return CodedBody, (self._coding, self._limit, self.sent)

    def __len__(self) -> int:
        """Bytes that the plain body has at least: those that were sent, and `HEAVY_BYTES`."""
        return max(len(self.sent), HEAVY_BYTES)

    def plain(self) -> memoryview:
        """Return the plain bytes; other threads run meanwhile. Any thread.

        Raises:
            TooLarge: the plain body is over the limit.
            DecodingError: the bytes are not in this coding.
        """
        inflate = Inflate(self._coding, self._limit)
        plain = ArrivingBody()
        for part in inflate.parts(self.sent):
            plain.append(part)
        inflate.finish()
        return plain.whole()


Body = bytes | memoryview | CodedBody | BodySink
"""A whole body; a `BodySink` where the route has one, and nowhere else."""


def plain_body(body: Body) -> bytes | memoryview:
    """Return the plain bytes of `body`; raises as `CodedBody.plain`. Any thread."""
    assert not isinstance(body, BodySink), "a route that has a sink takes it as it is"
    return body.plain() if isinstance(body, CodedBody) else body


class InflateWhileSmall:
    """Inflates a body while it arrives, as long as the body is small."""

    def __init__(self, coding: str, limit: int) -> None:
        """Undo `coding` (`gzip` or `deflate`) up to `limit` bytes."""
        self._coding = coding
        self._limit = limit
        self._sent = ArrivingBody()
        self._plain = bytearray()  # of HEAVY_BYTES at most
        self._inflate: Inflate | None = Inflate(coding, min(limit, HEAVY_BYTES))

    @property
    def held(self) -> int:
        """Bytes of memory that the body takes so far."""
        return self._sent.held + getsizeof(self._plain)

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body as it was sent.

        Raises:
            TooLarge: the body is over the limit, even as it was sent.
            DecodingError: the bytes are not in this coding.
        """
        if len(self._sent) + len(piece) > self._limit + CODING_OVERHEAD_BYTES:
            raise too_large(self._limit)
        self._sent.append(piece)
        if self._inflate is not None:
            try:
                self._plain += self._inflate.feed(piece)
            except TooLarge:
                if self._limit <= HEAVY_BYTES:
                    raise
                self._inflate, self._plain = None, bytearray()

    def finish(self) -> memoryview | CodedBody:
        """Return the body.

        Raises:
            DecodingError: a small body was cut off; a large one is found so when it is inflated.
        """
        if self._inflate is None:
            return CodedBody(self._coding, self._limit, self._sent.whole())
        self._inflate.finish()
        return memoryview(self._plain)


class BodyDecoder(Protocol):
    """Takes a coded body in pieces and gives the plain bytes, up to a limit."""

    @property
    def held(self) -> int:
        """Bytes of memory that the body takes so far."""

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body as it was sent. Raises TooLarge or DecodingError."""

    def finish(self) -> Body:
        """Return the body, which has ended. Raises DecodingError."""


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
        return InflateWhileSmall("deflate" if coding == "deflate" else "gzip", limit)
    raise UnsupportedMediaType(
        f"Content-Encoding: expected gzip, deflate or identity; got {content_encoding!r}"
    )

"""Lines of an open file, read from a byte on, with their numbers.

A line ends with LF, or CR and LF. What is longer than `MAX_LINE_BYTES` is never held in memory: the
rest is passed over, and the line is refused by itself.
"""

from __future__ import annotations

import os
from typing import BinaryIO, NamedTuple

from batcher.core.portions import Position
from batcher.errors import DecodingError

MAX_LINE_BYTES = 64 << 20
"""Longest line: as much as a request to a server may have by default."""

PORTION_BYTES = 32 << 20
"""Bytes of text after which a portion ends, however few rows it has: portions wait in memory."""

BEGIN: Position = [0, 0]
"""Byte and number of lines before it."""


class TextLine(NamedTuple):
    """One line, or several that quotes hold together.

    Attributes:
        number: of its first line, from 1.
        text: without the end of the line; empty if there is an error.
        error: why the line cannot be read.
    """

    number: int
    text: bytes
    error: DecodingError | None = None


class LineReader:
    """Reads lines one after the other."""

    def __init__(self, file: BinaryIO, quoted: bool = False) -> None:
        """Read `file`; an end of a line within quotes ends nothing if `quoted`."""
        self._file = file
        self._quoted = quoted
        self._number = 0
        self._size = file.seek(0, os.SEEK_END)

    @property
    def position(self) -> Position:
        """Where the next line begins."""
        return [self._file.tell(), self._number]

    @property
    def done(self) -> float:
        """The part of the file that is read."""
        return self._file.tell() / self._size if self._size else 1.0

    def go_to(self, position: Position) -> None:
        """Go on at `position`."""
        offset, self._number = position
        self._file.seek(offset)

    def next(self) -> TextLine | None:
        """Return the next line that is not empty; None at the end of the file."""
        while (line := self._next()) is not None:
            if line.text or line.error:
                return line
        return None

    def _next(self) -> TextLine | None:
        first = self._number + 1
        text = self._physical()
        if not text:
            return None
        if self._quoted and text.count(b'"') % 2:
            text = self._closed(text)
        if len(text) > MAX_LINE_BYTES:
            what = f"expected a line of at most {MAX_LINE_BYTES} bytes; got a longer one"
            return TextLine(first, b"", DecodingError(what))
        return TextLine(first, text.rstrip(b"\r\n"))

    def _closed(self, text: bytes) -> bytes:
        """Return `text`, whose quotes are odd, with the lines up to that which closes them.

        Each line is looked at once: a quote that nothing closes would else take hours.
        """
        parts, length, is_open = [text], len(text), True
        while is_open and length <= MAX_LINE_BYTES and (more := self._physical()):
            parts.append(more)
            length += len(more)
            is_open = more.count(b'"') % 2 == 0
        return b"".join(parts)

    def _physical(self) -> bytes:
        """Return the next line, with one byte more than is allowed if it is too long."""
        text = self._file.readline(MAX_LINE_BYTES + 1)
        if text:
            self._number += 1
        more = text
        while len(more) > MAX_LINE_BYTES and not more.endswith(b"\n"):
            more = self._file.readline(MAX_LINE_BYTES + 1)
        return text

"""Empty lines of a body in a format of lines.

Most clients mean nothing by an empty line, and the formats pass over it. A client that joins each
line of its body with a line of the answer would get all lines behind the empty one shifted by one.
Such a route sets `Content.line_for_line`. An end of a line is LF, CR, or CR and LF.
"""

from __future__ import annotations

import re

from batcher.codecs.content import Buffer
from batcher.errors import DecodingError

_EMPTY_LINE = re.compile(rb"[\r\n](?:(?<=\n[\r\n])|(?<=\r\r)|(?<=\A[\r\n]))")
"""The end of a line that is empty."""

_CONTENT = re.compile(rb"[^\r\n]")


def find_empty_line(text: Buffer) -> int | None:
    """Return where the first empty line begins, None if only empty lines or none stand behind it.

    A line within the quotes of CSV counts, too.
    """
    found = _EMPTY_LINE.search(text)
    if found is None or _CONTENT.search(text, found.end()) is None:
        return None
    return found.start()


def check_line_for_line(text: Buffer) -> None:
    """Check that no line before the last one is empty. Raises DecodingError."""
    place = find_empty_line(text)
    if place is not None:
        raise empty_line_error(1 + line_ends(bytes(text[:place])))


def leading_empty_lines(text: Buffer) -> tuple[int, int]:
    """Return how many empty lines `text` begins with, and the place behind them."""
    found = _CONTENT.search(text)
    behind = len(text) if found is None else found.start()
    return line_ends(bytes(text[:behind])), behind


def line_ends(text: bytes) -> int:
    """Return how many lines end in `text`."""
    # No list of the lines: of short lines it would be twenty times as large as the body.
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def empty_line_error(number: int) -> DecodingError:
    """Return the error for the empty line `number`; the first line of a body is 1."""
    return DecodingError(
        f"line {number}: expected a row, since each line has its line of the answer; got an empty "
        "line"
    )

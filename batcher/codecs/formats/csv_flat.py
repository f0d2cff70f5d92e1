"""The plain kind of CSV, read at the speed of C: lines of equal length, and no cell in doubt.

Most bodies are numbers that JSON writes in the same way. So orjson reads a piece of the body at a
time, with commas in place of the ends of lines. Other numbers (`+1`, `.5`, `nan`) are split at the
commas and read by `float` or `int`.

Whatever is unusual raises `Unusual`: quoted commas, a carriage return by itself, text that is not
ASCII, and everything that is wrong. `csv_rows` then reads the body again with Python's csv module,
which knows all of CSV and the lines that its errors name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import compress
from math import isinf
from typing import Any

import numpy as np
import orjson

from batcher.codecs.formats.csv_cells import BOOLEANS, FLOATS, check_length
from batcher.codecs.formats.long_lists import PIECE_BYTES, ArrayBuilder
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, TensorSpec
from batcher.errors import DecodingError, InvalidInput

_BOOLEANS = {cell.encode(): value for cell, value in BOOLEANS.items()}
_EMPTY_LINES = re.compile(rb"\n{2,}")
_MINUS_ZERO = re.compile(rb"-0(?![.0-9eE])")
"""A float to CSV, but the whole number 0 to JSON, whose sign is lost."""

_NOT_SEPARATORS = bytes(set(range(256)) - set(b",\n"))
_SEPARATORS = np.isin(np.arange(256), list(b",\n"))
_MAX_CELL = 1 << 17
"""Most characters of a cell to Python's csv module."""


class Unusual(Exception):
    """The body is not of the plain kind. It may be right all the same."""


def read_flat(text: memoryview, start: int, tensor: TensorSpec, limits: DecodingLimits) -> Array:
    """Return the cells from `start` on, as an array of the shape (lines, cells of a line).

    Raises:
        Unusual: the text is not of the plain kind.
        DecodingError: a very long first line has another length than a row.
        TooLarge: there are more lines or bytes than the limits allow.
    """
    width = _width(text, start, tensor)
    builder = ArrayBuilder(tensor, limits, flat=True)
    cells = 0
    for piece in _pieces(text, start):
        plain = _plain(piece, cells % width == 0)
        separators = plain.translate(None, _NOT_SEPARATORS)
        _check_lines(separators, cells % width, width)
        cells += len(separators)
        limits.check(cells // width, cells * tensor.datatype.numpy.itemsize, tensor.name)
        if plain:
            _add(builder, plain[:-1].replace(b"\n", b","), tensor.datatype.name)
    if not cells or cells % width:
        raise Unusual
    return builder.array().reshape(-1, width)


def _width(text: memoryview, start: int, tensor: TensorSpec) -> int:
    """Return the cells of the first line from `start` on.

    Raises:
        DecodingError: a long line has more or fewer cells than a row.
        Unusual: a line has.
    """
    commas = length = 0
    for piece in _pieces(text, start):
        line, end, _ = piece.lstrip(b"\r\n").partition(b"\n")
        commas += line.count(b",")
        length += len(piece)
        if end:
            break
    try:
        check_length(1 + bytes(text[:start]).count(b"\n"), commas + 1, tensor)
    except DecodingError as err:
        # the csv module would first make an object of each cell
        if length > PIECE_BYTES:
            raise
        raise Unusual from err
    return commas + 1


def _pieces(text: memoryview, start: int) -> Iterator[bytes]:
    """Yield the text in pieces that end with a comma or the end of a line."""
    while start < len(text):
        piece = bytes(text[start : start + PIECE_BYTES])
        if start + len(piece) < len(text):
            end = max(piece.rfind(b","), piece.rfind(b"\n")) + 1
            if not end:
                raise Unusual
            piece = piece[:end]
        start += len(piece)
        yield piece if piece.endswith((b",", b"\n")) else piece + b"\n"


def _plain(piece: bytes, begins_line: bool) -> bytes:
    """Return `piece` without empty lines, quotes and carriage returns. Raises Unusual."""
    if b"\r" in piece:
        piece = piece.replace(b"\r\n", b"\n")
        if b"\r" in piece:
            raise Unusual
    if b"\n\n" in piece:
        piece = _EMPTY_LINES.sub(b"\n", piece)
    if begins_line:
        piece = piece.lstrip(b"\n")
    return _without_quotes(piece) if b'"' in piece else piece


def _without_quotes(piece: bytes) -> bytes:
    """Return `piece` without quotes. Raises Unusual: a quote does not stand at the end of a cell.

    Commas and ends of lines within quotes are unusual, too.
    """
    characters = np.frombuffer(piece, "u1")
    separators = _SEPARATORS[characters]
    opening, closing = _halves(np.flatnonzero(characters == ord('"')))
    counts = np.cumsum(separators, dtype="u4")
    if (
        not separators[opening[opening > 0] - 1].all()
        or not separators[closing + 1].all()
        or not np.array_equal(counts[opening], counts[closing])
    ):
        raise Unusual
    return piece.translate(None, b'"')


def _halves(quotes: Array) -> tuple[Array, Array]:
    if len(quotes) % 2:
        raise Unusual
    return quotes[::2], quotes[1::2]


def _check_lines(separators: bytes, column: int, width: int) -> None:
    """Check that every line has `width` cells; the first separator ends the cell `column`."""
    to_end = width - column  # separators up to the end of the first line
    if len(separators) < to_end:
        expected = b"," * len(separators)
    else:
        lines, rest = divmod(len(separators) - to_end, width)
        expected = b"," * (to_end - 1) + b"\n"
        # a line may be longer than all pieces together: it is only made where it is there
        expected += (b"," * (width - 1) + b"\n") * lines if lines else b""
        expected += b"," * rest
    if separators != expected:
        raise Unusual


def _add(builder: ArrayBuilder, cells: bytes, datatype: str) -> None:
    """Add the values of cells between commas. Raises Unusual."""
    try:
        builder.add(_values(cells, datatype))
    # the place of a wrong value is that of its line and cell
    except (InvalidInput, ValueError, KeyError, OverflowError) as err:
        raise Unusual from err


def _values(cells: bytes, datatype: str) -> list[Any]:
    if datatype == "BYTES":
        return _texts(cells.split(b","))
    if datatype == "BOOL":
        return list(map(_BOOLEANS.__getitem__, cells.lower().split(b",")))
    if b"[" in cells or b"{" in cells or b"_" in cells or not cells.isascii():
        raise Unusual
    try:
        if not _MINUS_ZERO.search(cells):
            found: list[Any] = orjson.loads(b"".join((b"[", cells, b"]")))
            # a cell of blanks alone is no value
            return found or [float(cells)]
    except orjson.JSONDecodeError:
        pass
    texts = cells.split(b",")
    if datatype not in FLOATS:
        return list(map(int, texts))
    values = list(map(float, texts))
    # digits that are too large even for a 64-bit float
    if any(b"inf" not in text.lower() for text in compress(texts, map(isinf, values))):
        raise Unusual
    return values


def _texts(cells: list[bytes]) -> list[bytes]:
    text = b"".join(cells)
    if not text.isascii() or max(map(len, cells)) > _MAX_CELL:
        raise Unusual
    if any(blank in text for blank in b"\x1c\x1d\x1e\x1f"):
        raise Unusual  # blanks to `str.strip` alone
    return list(map(bytes.strip, cells))

"""The plain kind of CSV, read at the speed of C: lines of equal length, and no cell in doubt.

Most bodies are numbers that JSON writes in the same way. So orjson reads a piece of the body at a
time, with commas in place of the ends of lines. Other numbers (`+1`, `.5`, `nan`) are split at the
commas and read by `float` or `int`.

A table has a column for each input of a model. The columns of one datatype are read together, as
the cells of one wider row, since a table may have thousands of columns.

Whatever is unusual raises `Unusual`: quoted commas, numbers in letters other than ASCII, and
everything that is wrong. `csv_rows` then reads the body again with Python's csv module,
which knows all of CSV and the lines that its errors name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress
from math import isinf
from typing import Any, NamedTuple

import numpy as np
import orjson

from batcher.codecs.formats.csv_cells import BOOLEANS, LINE_END, check_length
from batcher.codecs.formats.empty_lines import leading_empty_lines, line_ends
from batcher.codecs.formats.long_lists import PIECE_BYTES, ArrayBuilder
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import FLOATS, Array, TensorSpec
from batcher.errors import DecodingError, InvalidInput

_BOOLEANS = {cell.encode(): value for cell, value in BOOLEANS.items()}
_EMPTY_LINES = re.compile(rb"\n{2,}")
_MINUS_ZERO = re.compile(rb"-0(?![.0-9eE])")
"""A float to CSV, but the whole number 0 to JSON, whose sign is lost."""

_NOT_BEHIND_PLUS = re.compile(rb"\+[^0-9n]")
"""What keeps a number with a plus from being read without the plus: `+-1` and `+ 1` are none."""

_OF_NUMBERS = b"0123456789+-.,e \tnan"
"""Characters of numbers and of `nan`, and those between them."""

_NOT_SEPARATORS = bytes(set(range(256)) - set(b",\n"))
_SEPARATORS = np.isin(np.arange(256), list(b",\n"))
_ENDS = np.isin(np.arange(256), list(b", \t"))
"""Characters that may stand beside a number."""

_MAX_CELL = 1 << 17
"""Most characters of a cell to Python's csv module."""


class Unusual(Exception):
    """The body is not of the plain kind. It may be right all the same.

    Attributes:
        place: bytes of the body before the first line that is to be read again; 0 for all lines.
        rows: the cells of the lines before, of shape (lines, cells of a line).
    """

    place = 0
    rows: Array = np.empty((0, 0))


def read_flat(text: memoryview, start: int, tensor: TensorSpec, limits: DecodingLimits) -> Array:
    """Return the cells from `start` on, as an array of the shape (lines, cells of a line).

    Raises:
        Unusual: the text is not of the plain kind.
        DecodingError: a very long first line has another length than a row.
        TooLarge: there are more lines or bytes than the limits allow.
    """
    width = _width(text, start, tensor)
    builder = ArrayBuilder(tensor, limits, flat=True)
    piece = _Piece(b"", 0, 0, start)
    try:
        for piece in _checked_pieces(text, start, width):
            nbytes = piece.end * tensor.datatype.numpy.itemsize
            limits.check(piece.end // width, nbytes, tensor.name)
            if piece.end > piece.begin:
                _add(builder, piece.text, tensor)
    except Unusual as unusual:
        _keep_rows(unusual, builder.array(), text, piece, width)
        raise
    return builder.array().reshape(-1, width)


def _keep_rows(unusual: Unusual, cells: Array, text: memoryview, at: _Piece, width: int) -> None:
    """Note the whole lines before the piece `at`, which a slow reader need not read again.

    `cells` are those of these lines, and perhaps more.
    """
    before, lines = max(at.place - PIECE_BYTES, 0), at.begin // width
    tail = bytes(text[before : at.place])
    end = max(map(tail.rfind, (b"\n", b"\r"))) + 1
    if not (lines and end):
        return
    place = before + end
    # A piece may begin between the two characters of an end of a line.
    unusual.place = place + (bytes(text[place - 1 : place + 1]) == b"\r\n")
    unusual.rows = cells.reshape(-1)[: lines * width].reshape(lines, width)


def read_columns(
    text: memoryview, start: int, tensors: Sequence[TensorSpec], limits: DecodingLimits
) -> dict[str, Array]:
    """Return the columns of a table from `start` on; a cell is one value of one tensor.

    `tensors` are in the order of the columns, and so are the arrays.

    Raises:
        Unusual: the text is not of the plain kind.
        TooLarge: there are more lines or bytes than the limits allow.
    """
    width = len(tensors)
    groups = [_Group(tensors, kind, limits) for kind in set(map(_kind_of, tensors))]
    for piece in _checked_pieces(text, start, width):
        limits.check(piece.end // width, 0, tensors[0].name)
        if piece.end > piece.begin:
            cells = piece.text.split(b",") if len(groups) > 1 else []
            for group in groups:
                group.add(piece, cells, width)
    columns: dict[str, Array] = {}
    for group in groups:
        columns |= group.columns()
    return columns


class _Piece(NamedTuple):
    """Cells of whole lines, and of parts of two.

    Attributes:
        text: the cells, with commas between them.
        begin: cells of the body before the piece.
        end: cells of the body up to the end of the piece.
        place: bytes of the body before the piece.
    """

    text: bytes
    begin: int
    end: int
    place: int


def _kind_of(tensor: TensorSpec) -> tuple[str, bool]:
    """Return what decides how the cells of `tensor` are read."""
    return tensor.datatype.name, tensor.missing_is_nan


class _Group:
    """The columns of a table whose cells are read alike."""

    def __init__(
        self, tensors: Sequence[TensorSpec], kind: tuple[str, bool], limits: DecodingLimits
    ) -> None:
        """Begin without cells; `tensors` are those of all columns, `kind` is that of the group."""
        self._mask = bytes(_kind_of(tensor) == kind for tensor in tensors)
        self._tensors = list(compress(tensors, self._mask))
        self._row = replace(self._tensors[0], shape=(len(self._tensors),), warmup_shape=None)
        self._builder = ArrayBuilder(self._row, limits, flat=True)

    def add(self, piece: _Piece, cells: list[bytes], width: int) -> None:
        """Add the cells of the group in `piece`; a line has `width` cells.

        `cells` are those of the piece, or empty if there is no other group. Raises Unusual.
        """
        text = piece.text
        if cells:
            lines = len(cells) // width + 2
            found = list(compress(cells, (self._mask * lines)[piece.begin % width :]))
            # of a piece within one line, a group may have nothing
            if not found:
                return
            text = b",".join(found)
        _add(self._builder, text, self._row)

    def columns(self) -> dict[str, Array]:
        """Return the array of each tensor."""
        rows = self._builder.array().reshape(-1, len(self._tensors))
        columns = zip(self._tensors, np.ascontiguousarray(rows.T), strict=True)
        return {tensor.name: column.reshape(-1, *tensor.shape) for tensor, column in columns}


def _checked_pieces(text: memoryview, start: int, width: int) -> Iterator[_Piece]:
    """Yield the cells from `start` on, all lines of `width` cells. Raises Unusual."""
    end, place = 0, start
    for piece in _pieces(text, start):
        begin = end
        plain = _plain(piece, begin % width == 0)
        separators = plain.translate(None, _NOT_SEPARATORS)
        _check_lines(separators, begin % width, width)
        end += len(separators)
        yield _Piece(plain[:-1].replace(b"\n", b","), begin, end, place)
        place += len(piece)
    if not end or end % width:
        raise Unusual


def _width(text: memoryview, start: int, tensor: TensorSpec) -> int:
    """Return the cells of the first line from `start` on.

    Raises DecodingError: a long line has more or fewer cells than a row. Raises Unusual: a shorter
    line has, or there is no line.
    """
    begin = start + leading_empty_lines(text[start:])[1]
    if begin == len(text):
        raise Unusual
    commas = length = quotes = 0
    for piece in _pieces(text, begin):
        line = LINE_END.split(piece, 1)[0]
        commas += line.count(b",")
        quotes += line.count(b'"')
        length += len(piece)
        if len(line) < len(piece):
            break
    try:
        check_length(1 + line_ends(bytes(text[:begin])), commas + 1, tensor, text)
    except DecodingError as err:
        # the csv module would first make an object of each cell, but it knows commas within quotes
        if length > PIECE_BYTES and not quotes:
            raise
        raise Unusual from err
    return commas + 1


def _pieces(text: memoryview, start: int) -> Iterator[bytes]:
    """Yield the text in pieces that end with a comma or the end of a line. Raises Unusual."""
    while start < len(text):
        piece = bytes(text[start : start + PIECE_BYTES])
        if start + len(piece) < len(text):
            end = max(map(piece.rfind, (b",", b"\n", b"\r"))) + 1
            if not end:
                raise Unusual
            piece = piece[:end]
        start += len(piece)
        yield piece if piece.endswith((b",", b"\n", b"\r")) else piece + b"\n"


def _plain(piece: bytes, begins_line: bool) -> bytes:
    """Return `piece` without empty lines, quotes and carriage returns. Raises Unusual."""
    # two ends of a line are one, and one in quotes is unusual in any case
    piece = piece.replace(b"\r", b"\n")
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


def _add(builder: ArrayBuilder, cells: bytes, tensor: TensorSpec) -> None:
    """Add the values of cells between commas. Raises Unusual."""
    try:
        builder.add(_values(cells, tensor))
    # the place of a wrong value is that of its line and cell
    except (InvalidInput, ValueError, KeyError, OverflowError) as err:
        raise Unusual from err


def _values(cells: bytes, tensor: TensorSpec) -> list[Any]:
    datatype = tensor.datatype.name
    if datatype == "BYTES":
        return _texts(cells)
    if datatype == "BOOL":
        return list(map(_BOOLEANS.__getitem__, cells.lower().split(b",")))
    if b"[" in cells or b"{" in cells or b"_" in cells or not cells.isascii():
        raise Unusual
    if (found := _as_json(cells)) is not None:
        # a cell of blanks alone is no value
        return found or [float(cells)]
    if datatype in FLOATS and (found := _with_nan(cells, tensor.missing_is_nan)):
        return found
    texts = cells.split(b",")
    if datatype not in FLOATS:
        return list(map(int, texts))
    if tensor.missing_is_nan:
        texts = [text if text and not text.isspace() else b"nan" for text in texts]
    values = list(map(float, texts))
    # digits that are too large even for a 64-bit float
    if any(b"inf" not in text.lower() for text in compress(texts, map(isinf, values))):
        raise Unusual
    return values


def _as_json(cells: bytes) -> list[Any] | None:
    """Return the values of numbers as JSON writes them, with or without a plus; None for others."""
    if b"+" in cells and not _NOT_BEHIND_PLUS.search(cells):
        cells = (b"," + cells).replace(b",+", b",")[1:]
    if _MINUS_ZERO.search(cells):
        return None
    try:
        found: list[Any] = orjson.loads(b"".join((b"[", cells, b"]")))
    except orjson.JSONDecodeError:
        return None
    return found


def _with_nan(cells: bytes, missing_is_nan: bool) -> list[float] | None:
    """Return the values of numbers and `nan`, empty cells too if `missing_is_nan`; None for others.

    JSON reads a 0 in place of each `nan`, since other values would take twice as long.
    """
    cells = cells.lower()
    if (not missing_is_nan and b"nan" not in cells) or cells.translate(None, _OF_NUMBERS):
        return None
    cells = b"," + cells + b","
    if missing_is_nan:
        # Twice, since two empty cells beside each other share a comma.
        cells = cells.replace(b",,", b",nan,").replace(b",,", b",nan,")
    characters = np.frombuffer(cells, np.uint8)
    places = np.flatnonzero(characters[:-2] == ord("n"))[::2]  # an `n` begins, and one ends `nan`
    ends = _ENDS[characters]
    found = _as_json(cells[1:-1].replace(b"nan", b"0"))
    if found is None or cells.count(b"nan") != len(places):
        return None
    if not (ends[places - 1].all() and ends[places + 3].all()):
        return None
    values = np.array(found, np.float64)
    values[np.cumsum(characters == ord(","), dtype=np.int32)[places] - 1] = np.nan
    read: list[float] = values.tolist()
    return read


def _texts(cells: bytes) -> list[bytes] | list[str]:
    found = cells.split(b",")
    if max(map(len, found)) > _MAX_CELL:
        raise Unusual
    # to `str.strip` more characters are blanks
    if cells.isascii() and not any(blank in cells for blank in b"\x1c\x1d\x1e\x1f"):
        return list(map(bytes.strip, found))
    return list(map(str.strip, cells.decode().split(",")))

"""`text/csv`: one row of the model on each line, separated by commas, quoted as spreadsheets do.

    model                                  a line holds                        header
    one input                              its elements, in row-major order    optional
    several inputs of one value (a table)  one value of each input             names, in any order,
                                                                               or `absent`

Values of a table without a header stand in the order of the model's inputs. Where the header is
optional, the media type's `header=present` or `header=absent` decides (RFC
4180). Without that parameter a first line of names alone, with no number among them, is a header.
Of a model that takes strings any line might be a row. There a header is the name of the input, or
`name[0],name[1]` for several cells, with at least one line behind it; a row that reads like that
needs `header=absent`. `nan` and `inf` are numbers here; an empty cell is NaN if the input says
`missing: nan`. Empty lines are passed over, but are an error where `Content.line_for_line` is set.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from itertools import chain

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.csv_answers import names_of
from batcher.codecs.formats.csv_cells import (
    LINE_END,
    NO_LINE_END,
    Line,
    check_length,
    column_of,
    is_number,
    line_end_advice,
    separator_advice,
    values_of,
)
from batcher.codecs.formats.csv_flat import Unusual, read_columns, read_flat
from batcher.codecs.formats.empty_lines import (
    empty_line_error,
    find_empty_line,
    leading_empty_lines,
    line_ends,
)
from batcher.codecs.formats.long_lists import ArrayBuilder
from batcher.core.error_text import brief
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput

_PIECE_CELLS = 1 << 15
"""Cells that are read before their values are put into an array."""

MAX_HEADER_BYTES = 1 << 23
"""Longest first line that may be a header: one of a million names."""

MAX_COMMAS = 1 << 21
"""Most commas in a line that only Python's csv module can read: its cells take 100 bytes each."""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether lines can hold `tensors`.

    Lines can hold one tensor with at most one free axis, or several tensors of one value a row.
    """
    if len(tensors) == 1:
        return tensors[0].free_axes <= 1
    return all(tensor.shape in ((), (1,)) for tensor in tensors)


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in the lines of the body.

    Raises:
        DecodingError: the body is not text, a cell is not a value of the input's datatype, or a
            line has another length.
        InvalidInput: the header does not name the model's inputs.
        TooLarge: there are more rows or bytes than the limits allow.
    """
    if len(spec.inputs) > 1:
        return _table(content, spec)
    tensor = spec.inputs[0]
    text = memoryview(content.text())
    declared = content.parameters.get("header", "")
    try:
        _check_line_for_line(content, text)
        array = read_flat(text, _start(text, tensor, declared), tensor, content.limits)
    except Unusual as unusual:
        if unusual.place:
            array = _rows_behind(unusual, text, content, tensor)
        else:
            array = _rows(_lines(text, content), content, tensor, declared)
    return {tensor.name: array.reshape(len(array), *_row_shape(tensor, array.shape[1]))}


def header_length(head: bytes, spec: ModelSpec, declared: str) -> int:
    """Return how many bytes of a file that begins with `head` are the header; 0 without one.

    `declared` is as in `_has_header`. Raises InvalidInput: the header does not name the inputs.
    """
    try:
        if len(spec.inputs) == 1:
            return min(_start(memoryview(head), spec.inputs[0], declared), len(head))
        if declared == "absent":
            return 0
        names, behind = _first_line(head, True)
        _in_order(names, spec, Content(head[:behind]))
        return min(behind, len(head))
    except Unusual as err:
        if declared == "absent" or (len(spec.inputs) == 1 and not declared):
            return 0
        raise DecodingError("line 1: expected a header of names; got another line") from err


def _check_line_for_line(content: Content, text: Buffer) -> None:
    """Check that no line seems empty where each must be a row. Raises Unusual.

    `_lines` knows whether such a line stands within quotes.
    """
    if content.line_for_line and find_empty_line(text) is not None:
        raise Unusual


def _start(text: memoryview, tensor: TensorSpec, declared: str) -> int:
    """Return the place behind the header, if there is one; `declared` as in `_has_header`.

    Raises Unusual: there is no line, it is very long, or it does not end where a quote is open.
    """
    if declared == "absent":
        return 0
    head = bytes(text[:MAX_HEADER_BYTES])
    # most bodies have no header, and their first cell shows that
    first = LINE_END.split(head.lstrip(b"\r\n").partition(b",")[0], 1)[0]
    if not declared and _is_value(first.decode("latin-1"), tensor):
        return 0
    names, behind = _first_line(head, len(head) == len(text))
    if not declared and tensor.datatype.name == "BYTES" and not head[behind:].strip(b"\r\n"):
        return 0
    return behind if _has_header(names, tensor, declared) else 0


def _first_line(head: bytes, is_all: bool) -> tuple[list[str], int]:
    """Return the cells of the first line, and the place behind that line.

    `head` is the beginning of the body, or all of it. Raises Unusual: there is no line, it is very
    long, or it does not end where a quote is open.
    """
    blank = len(head) - len(head.lstrip(b"\r\n"))
    cells = LINE_END.split(head[blank:], 1)[0]
    behind = blank + len(cells) + 1
    is_whole = behind <= len(head) or is_all
    if not is_whole or not cells or cells.count(b'"') % 2:
        raise Unusual
    try:
        return next(csv.reader([cells.decode()], strict=True)), behind
    except (UnicodeDecodeError, csv.Error) as err:
        raise Unusual from err


def _is_value(cell: str, tensor: TensorSpec) -> bool:
    """Return whether a line that begins with `cell` is surely a row."""
    if tensor.datatype.name == "BYTES":
        return not cell.lstrip(' "').startswith(tensor.name[:1])
    return is_number(cell)


class _PhysicalLines:
    """The lines of a file, for the csv module, which makes one line of several at quotes.

    Attributes:
        commas: commas since the csv module gave a line; the line has no more cells than that.
    """

    def __init__(self, text: Buffer, skipped: int) -> None:
        """Read UTF-8, before which `skipped` lines stand."""
        self._file = TextIOWrapper(BytesIO(text), "utf-8", newline="")
        self._number = skipped
        self.commas = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the lines. Raises DecodingError: a line has very many cells."""
        for line in self._file:
            self._number += 1
            self.commas += line.count(",")
            if self.commas > MAX_COMMAS:
                raise DecodingError(
                    f"line {self._number}: expected at most {MAX_COMMAS} commas in a line of "
                    "other cells than plain ones; got more"
                )
            yield line


def _lines(text: Buffer, content: Content, before: int = 0) -> Iterator[Line]:
    """Yield the lines of `text` that are not empty; `before` lines of the body stand before them.

    Raises DecodingError.
    """
    # 64 MiB of empty lines are a step of C here, and were 15 s of the csv module.
    skipped, start = leading_empty_lines(text)
    skipped += before
    empty = before + 1 if skipped > before else 0  # the first line that is empty
    physical = _PhysicalLines(memoryview(text)[start:], skipped)
    reader = csv.reader(physical, strict=True)
    try:
        for cells in reader:
            physical.commas = 0
            if not cells:
                empty = empty or skipped + reader.line_num
                continue
            if empty and content.line_for_line:
                raise empty_line_error(empty)
            yield Line(skipped + reader.line_num, cells)
    except (UnicodeDecodeError, csv.Error) as err:
        raise DecodingError(
            f"body: expected CSV in charset {content.parameters.get('charset', 'utf-8')!r}: {err}"
            f"{'' if LINE_END.search(text) else NO_LINE_END}"
        ) from err


def _pieces(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Yield the lines, some at a time."""
    piece: list[Line] = []
    cells = 0
    for line in lines:
        piece.append(line)
        cells += len(line.cells)
        if cells >= _PIECE_CELLS:
            yield piece
            piece, cells = [], 0
    if piece:
        yield piece


def _first(lines: Iterator[Line]) -> Line:
    line = next(lines, None)
    if line is None:
        raise DecodingError("body: expected at least one line of values; got none")
    return line


def _first_row(lines: Iterator[Line], tensor: TensorSpec, declared: str) -> Line:
    """Return the first line that is no header; `declared` is as in `_has_header`."""
    first = _first(lines)
    if not _has_header(first.cells, tensor, declared):
        return first
    behind = next(lines, None)
    if behind is not None:
        return behind
    # Of strings the name of the input may be a row, and is one where nothing else is.
    if tensor.datatype.name == "BYTES" and not declared:
        return first
    raise DecodingError(
        f"line 1: expected {tensor.datatype.name} values; got {first.cells[:4]}, and no line "
        "behind it"
    )


def _rows_behind(unusual: Unusual, text: memoryview, content: Content, tensor: TensorSpec) -> Array:
    """Return the rows that `unusual` has, and those in the lines behind."""
    number = line_ends(bytes(text[: unusual.place]))
    lines = _lines(text[unusual.place :], content, number)
    return _rows(lines, content, tensor, "absent", unusual.rows)


def _rows(
    lines: Iterator[Line],
    content: Content,
    tensor: TensorSpec,
    declared: str,
    before: Array | None = None,
) -> Array:
    """Return the cells of any CSV as an array of the shape (lines, cells of a line).

    The rows `before` those of `lines` are known. `declared` is as in `_has_header`.
    """
    first = _first_row(lines, tensor, declared)
    builder, text = ArrayBuilder(tensor, content.limits), content.text()
    if before is not None:
        builder.add_array(before)
    for piece in _pieces(chain([first], lines)):
        for line in piece:
            check_length(line.number, len(line.cells), tensor, text)
        values, rows, end = values_of(piece, tensor), [], 0
        for line in piece:
            rows.append(values[end : end + len(line.cells)])
            end += len(line.cells)
        builder.add(rows)
    return builder.array()


def _table(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs of a model of several inputs of one value each."""
    text = memoryview(content.text())
    is_absent = content.parameters.get("header") == "absent"
    try:
        _check_line_for_line(content, text)
        if is_absent:
            return read_columns(text, 0, spec.inputs, content.limits)
        head = bytes(text[:MAX_HEADER_BYTES])
        names, start = _first_line(head, len(head) == len(text))
        tensors = _in_order(names, spec, content)
        return read_columns(text, start, tensors, content.limits)
    except Unusual:
        return _odd_table(text, content, spec, is_absent)


def _in_order(header: list[str], spec: ModelSpec, content: Content) -> list[TensorSpec]:
    """Return the inputs in the order of `header`. Raises InvalidInput: it names others."""
    found = [cell.strip() for cell in header]
    names = [tensor.name for tensor in spec.inputs]
    required = {tensor.name for tensor in spec.required}
    if len(set(found)) < len(found) or not required <= set(found) <= set(names):
        raise InvalidInput(
            f"line 1: expected a header of {', '.join(names)} in any order; got "
            f"{', '.join(found)}{line_end_advice(content.text(), len(found), len(names))}"
            f"{_header_advice(header, names)}"
        )
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    return [tensors[name] for name in found]


def _header_advice(header: list[str], names: list[str]) -> str:
    """Return advice where `header` is not a wrong one, but none, or has other separators."""
    line = ",".join(header)
    if advice := separator_advice(line, len(names)):
        return advice
    if not any(map(is_number, header)):
        return ""
    example = ",".join(names)
    return (
        ". A model of several inputs needs a header, which says whose value each cell is: put the "
        f"line {brief(example, 200)} before the rows, or post them in this order as "
        "`text/csv; header=absent`"
    )


def _odd_table(
    text: Buffer, content: Content, spec: ModelSpec, is_absent: bool
) -> dict[str, Array]:
    """Return the columns of any table, which has no header if `is_absent`."""
    lines = _lines(text, content)
    tensors = list(spec.inputs) if is_absent else _in_order(_first(lines).cells, spec, content)
    builders = {tensor: ArrayBuilder(tensor, content.limits) for tensor in tensors}
    for piece in _pieces(lines):
        for line in piece:
            if len(line.cells) != len(tensors):
                raise DecodingError(
                    f"line {line.number}: expected {len(tensors)} cells; got {len(line.cells)}"
                    f"{line_end_advice(text, len(line.cells), len(tensors))}"
                )
        for column, (tensor, builder) in enumerate(builders.items()):
            builder.add(column_of(piece, column, tensor))
    return {
        tensor.name: builder.array().reshape(-1, *tensor.shape)
        for tensor, builder in builders.items()
    }


def _has_header(cells: list[str], tensor: TensorSpec, declared: str) -> bool:
    """Return whether a first line of `cells` is a header, if there are lines behind it.

    The media type's parameter, `declared`, decides if it is there. Otherwise a header is a line
    that can be nothing but names. A line with a number, with an empty cell, or with more or fewer
    cells than a row has values is a wrong row instead: the row is refused with its place, rather
    than dropped.
    """
    if declared in ("present", "absent"):
        return declared == "present"
    if not tensor.free_axes and len(cells) != tensor.fixed_size:
        return False
    if tensor.datatype.name == "BYTES":
        return [cell.strip() for cell in cells] == names_of(tensor.name, len(cells))
    return all(cell.strip() and not is_number(cell) for cell in cells)


def _row_shape(tensor: TensorSpec, cells: int) -> tuple[int, ...]:
    """Return the shape of a row of so many cells; the one free axis follows from their number."""
    free = cells // tensor.fixed_size if tensor.fixed_size else 0
    return tuple(free if size < 0 else size for size in tensor.shape)

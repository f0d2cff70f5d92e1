"""Cells of CSV to values: what counts as a value of each datatype, and the error for what does not.

Python's own `float` and `int` read the cells, many at once without a step of Python for each.
`nan` and `inf` are numbers here. Not numbers: `1_000`, and digits that are too large even for a
64-bit float. An empty cell is NaN for an input that says `missing: nan`, else it is no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, compress
from math import isinf, nan
from typing import Any, NamedTuple

from batcher.codecs.content import Buffer
from batcher.core.error_text import brief
from batcher.core.spec import FLOATS, TensorSpec, missing_advice
from batcher.errors import DecodingError

BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
"""Cells, in lower case, that are booleans."""


class Line(NamedTuple):
    """A line that is not empty.

    Attributes:
        number: number of the line in the body, the first is 1.
        cells: text of each cell.
    """

    number: int
    cells: list[str]


_MAX_BEGIN = 1 << 12
"""Bytes of a first line that are looked through for another separator."""

LINE_END = re.compile(rb"[\r\n]")
"""Behind an end of two characters there is an empty line, which is passed over like any other."""


def check_length(number: int, cells: int, tensor: TensorSpec, text: Buffer) -> None:
    """Check that the line `number` of `text` has as many cells as a row. Raises DecodingError."""
    unit = tensor.fixed_size
    if (cells != unit) if not tensor.free_axes else (unit == 0 or cells % unit):
        per = f"a multiple of {unit}" if tensor.free_axes else str(unit)
        raise DecodingError(
            f"line {number}: expected {per} cells for {tensor.describe()}; got {cells}"
            f"{line_end_advice(text, cells, unit)}{separator_advice(_begin(text), unit)}"
        )


NO_LINE_END = (
    ". The body has no line end: `curl -d @file` takes line ends out, "
    "`curl --data-binary @file` keeps them"
)


def line_end_advice(text: Buffer, cells: int, unit: int) -> str:
    """Return advice if `text` is one line whose `cells` may be those of several rows of `unit`.

    Where a line end is lost, the last cell of a row and the first of the next become one: two rows
    of four cells have seven. A file that ends its lines with commas has eight.
    """
    are_joined = cells > unit > 1 and (cells % unit == 0 or (cells - 1) % (unit - 1) == 0)
    if not are_joined or LINE_END.search(text):
        return ""
    return NO_LINE_END


def _begin(text: Buffer) -> str:
    """Return the first line that is not empty, or its begin where it is very long."""
    line = LINE_END.split(bytes(text[:_MAX_BEGIN]).lstrip(b"\r\n"), 1)[0]
    return line.decode("utf-8", "replace")


def separator_advice(line: str, cells: int = 0) -> str:
    """Return advice if `line` has another separator than commas where commas are expected.

    `cells` are those of a row; 0 or 1 for any number.
    """
    for separator, name in ((";", "';'"), ("\t", "a tab")):
        count = line.count(separator)
        if count and (cells < 2 or count == cells - 1):
            return f". Cells are separated by commas, not by {name}: write the file with commas"
    return ""


def values_of(lines: list[Line], tensor: TensorSpec) -> list[Any]:
    """Return the values of all cells of `lines`, line by line.

    Raises:
        DecodingError: a cell is not a value of the tensor's datatype.
    """
    cells = list(chain.from_iterable(line.cells for line in lines))
    try:
        return _read(cells, tensor)
    except (ValueError, KeyError):
        # one by one, to tell which cell is wrong
        return [_value(line, column, tensor) for line in lines for column in range(len(line.cells))]


def column_of(lines: list[Line], column: int, tensor: TensorSpec) -> list[Any]:
    """Return the values of one column of `lines`; raises as `values_of` does."""
    try:
        return _read([line.cells[column] for line in lines], tensor)
    except (ValueError, KeyError):
        return [_value(line, column, tensor) for line in lines]


def _value(line: Line, column: int, tensor: TensorSpec) -> Any:
    """Return the value of one cell. Raises DecodingError: it is none of the tensor's datatype."""
    cell = line.cells[column]
    if tensor.missing_is_nan and not cell.strip():
        return "" if tensor.datatype.name == "BYTES" else nan
    try:
        return _reader(tensor.datatype.name)(cell.strip())
    except (ValueError, KeyError) as err:
        raise DecodingError(
            f"line {line.number}, cell {column + 1}: expected {tensor.datatype.name} for "
            f"{tensor.name!r}; got {brief(cell, 60)}{missing_advice(tensor, not cell.strip())}"
            f"{separator_advice(cell)}",
        ) from err


def is_number(cell: str) -> bool:
    """Return whether `cell` is a number or a boolean, or was perhaps meant as one."""
    try:
        # float() also takes 1_000 and 1e999: a line with a wrong number is refused, not taken for
        # a header
        float(cell)
    except ValueError:
        return cell.strip().lower() in BOOLEANS
    return True


def _read(cells: list[str], tensor: TensorSpec) -> list[Any]:
    """Return the values of many cells. Raises ValueError or KeyError where one may be wrong."""
    datatype = tensor.datatype.name
    if datatype == "BYTES":
        return list(map(str.strip, cells))
    if datatype == "BOOL":
        return list(map(BOOLEANS.__getitem__, map(str.lower, map(str.strip, cells))))
    # Python reads 1_000 as a number; a table does not mean that
    if "_" in "".join(cells):
        raise ValueError
    if datatype not in FLOATS:
        return list(map(int, cells))
    if tensor.missing_is_nan:
        cells = [cell if cell and not cell.isspace() else "nan" for cell in cells]
    values = list(map(float, cells))
    if any("inf" not in cell.lower() for cell in compress(cells, map(isinf, values))):
        raise ValueError
    return values


def _reader(datatype: str) -> Callable[[str], Any]:
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return lambda cell: BOOLEANS[cell.lower()]
    return _float if datatype in FLOATS else _whole


def _float(cell: str) -> float:
    if "_" in cell:
        raise ValueError(cell)
    value = float(cell)
    if isinf(value) and "inf" not in cell.lower():
        raise ValueError(cell)
    return value


def _whole(cell: str) -> int | float:
    if "_" in cell:
        raise ValueError(cell)
    try:
        return int(cell)
    except ValueError:
        return _float(cell)

"""`text/csv`: one row of the model on each line, separated by commas, quoted as spreadsheets do.

    model                                  a line holds                        header
    one input                              its elements, in row-major order    optional
    several inputs of one value (a table)  one value of each input             names, in any order

Where the header is optional, the media type's `header=present` or `header=absent` decides (RFC
4180). Without that parameter a first line of names alone, with no number among them, is a header,
unless the model takes strings. `nan` and `inf` are numbers here; an empty cell is not.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from math import isinf
from typing import Any, NamedTuple

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.nested_lists import array_from_lists
from batcher.codecs.formats.predictions import predictions
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


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
    """
    lines = _lines(content)
    if not lines:
        raise DecodingError("body: expected at least one line of values; got none")
    if len(spec.inputs) > 1:
        return _table(lines, spec)
    tensor = spec.inputs[0]
    if _has_header(lines[0].cells, tensor, content.parameters.get("header", "")):
        header = lines.pop(0).cells
        if not lines:
            raise DecodingError(
                f"line 1: expected {tensor.datatype.name} values; got {header[:4]}, and no line "
                "behind it"
            )
    rows = [_values(line, tensor) for line in lines]
    array = array_from_lists(rows, tensor)
    return {tensor.name: array.reshape(len(rows), *_row_shape(tensor, len(rows[0])))}


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return a header and a line for each row.

    A line has label and probability, if the model has labels, and then the values of each output.
    """
    columns: list[list[str]] = []
    header: list[str] = []
    if best := predictions(response, spec):
        header += ["label", "probability"]
        columns += [[row["label"] for row in best], [repr(row["probability"]) for row in best]]
    for tensor in spec.outputs:
        array = plain_numbers(response.outputs[tensor.name], tensor.datatype.name)
        flat = array.reshape(len(array), -1)
        header += [
            tensor.name if flat.shape[1] == 1 else f"{tensor.name}[{index}]"
            for index in range(flat.shape[1])
        ]
        columns += [[_cell(value) for value in column] for column in flat.T]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue().encode()


class _Line(NamedTuple):
    """A line that is not empty.

    Attributes:
        number: number of the line in the body, the first is 1.
        cells: text of each cell.
    """

    number: int
    cells: list[str]


def _lines(content: Content) -> list[_Line]:
    try:
        reader = csv.reader(StringIO(bytes(content.text()).decode(), newline=""), strict=True)
        return [_Line(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as err:
        raise DecodingError(
            f"body: expected CSV in charset {content.parameters.get('charset', 'utf-8')!r}: {err}"
        ) from err


def _table(lines: list[_Line], spec: ModelSpec) -> dict[str, Array]:
    header, *rows = ([cell.strip() for cell in lines[0].cells], *lines[1:])
    names = [tensor.name for tensor in spec.inputs]
    if sorted(header) != sorted(names):
        raise InvalidInput(
            f"line 1: expected a header of {', '.join(names)} in any order; got {', '.join(header)}"
        )
    for line in rows:
        if len(line.cells) != len(header):
            raise DecodingError(
                f"line {line.number}: expected {len(header)} cells; got {len(line.cells)}"
            )
    inputs = {}
    for tensor in spec.inputs:
        column = header.index(tensor.name)
        cells = [_value(line, column, tensor) for line in rows]
        inputs[tensor.name] = array_from_lists(cells, tensor).reshape(-1, *tensor.shape)
    return inputs


def _has_header(cells: list[str], tensor: TensorSpec, declared: str) -> bool:
    """Return whether a first line of `cells` is a header.

    The media type's parameter, `declared`, decides if it is there. Otherwise a header is a line
    that can be nothing but names. A line with a number, with an empty cell, or with more or fewer
    cells than a row has values is a wrong row instead: the row is refused with its place, rather
    than dropped.
    """
    if declared in ("present", "absent"):
        return declared == "present"
    if tensor.datatype.name == "BYTES" or (
        not tensor.free_axes and len(cells) != tensor.fixed_size
    ):
        return False
    return all(cell.strip() and not _is_number(cell) for cell in cells)


def _row_shape(tensor: TensorSpec, cells: int) -> tuple[int, ...]:
    """Return the shape of a row of so many cells; the one free axis follows from their number."""
    free = cells // tensor.fixed_size if tensor.fixed_size else 0
    return tuple(free if size < 0 else size for size in tensor.shape)


def _values(line: _Line, tensor: TensorSpec) -> list[Any]:
    unit, count = tensor.fixed_size, len(line.cells)
    if (count != unit) if not tensor.free_axes else (unit == 0 or count % unit):
        per = f"a multiple of {unit}" if tensor.free_axes else str(unit)
        raise DecodingError(
            f"line {line.number}: expected {per} cells for {tensor.describe()}; got {count}"
        )
    return [_value(line, column, tensor) for column in range(count)]


def _value(line: _Line, column: int, tensor: TensorSpec) -> Any:
    cell = line.cells[column]
    try:
        return _reader(tensor.datatype.name)(cell.strip())
    except (ValueError, KeyError) as err:
        raise DecodingError(
            f"line {line.number}, cell {column + 1}: expected {tensor.datatype.name} for "
            f"{tensor.name!r}; got {cell!r:.60}",
        ) from err


def _reader(datatype: str) -> Callable[[str], Any]:
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return lambda cell: _BOOLEANS[cell.lower()]
    return _float if datatype in ("FP16", "FP32", "FP64", "BF16") else _whole


def _float(cell: str) -> float:
    # Python reads 1_000 as a number; a table does not mean that
    if "_" in cell:
        raise ValueError(cell)
    value = float(cell)
    # digits that are too large even for a 64-bit float
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


def _is_number(cell: str) -> bool:
    try:
        # float() also takes 1_000 and 1e999: a line with a wrong number is refused, not taken for
        # a header
        float(cell)
    except ValueError:
        return cell.strip().lower() in _BOOLEANS
    return True


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).lower() if isinstance(value, np.bool_) else str(value)

"""`text/csv`: a row of the model a line, an optional header; comma separated, quoted as spreadsheets do.

For a model of one input a line holds that input's elements in row-major order. For a model of several inputs of one value
each (a table) the header names the columns, in any order. A first line with a cell that is no number is a header, unless
the model takes strings. `nan` and `inf` are numbers here; empty cells are not.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.nested_lists import array_from_lists
from batcher.codecs.predictions import numbers, predictions
from batcher.errors import DecodingError, InvalidInput
from batcher.request import InferenceResponse
from batcher.spec import Array, ModelSpec, TensorSpec

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether lines can hold these tensors: one with at most one free axis, or several of one value each."""
    return tensors[0].free_axes <= 1 if len(tensors) == 1 else all(tensor.shape in ((), (1,)) for tensor in tensors)


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in the lines of the body.

    Raises:
        DecodingError: not text, a cell that is no value of the input's datatype, or a line of another length.
        InvalidInput: the header does not name the model's inputs.
    """
    lines = _lines(content)
    if not lines:
        raise DecodingError("body: expected at least one line of values; got none")
    if len(spec.inputs) > 1:
        return _table(lines, spec)
    tensor = spec.inputs[0]
    skipped = int(tensor.datatype.name != "BYTES" and not all(_is_number(cell) for cell in lines[0]))
    if skipped and len(lines) == 1:
        raise DecodingError(f"line 1: expected {tensor.datatype.name} values; got {lines[0][:4]}")
    cells = [_values(line, tensor, index + 1 + skipped) for index, line in enumerate(lines[skipped:])]
    array = array_from_lists(cells, tensor, may_hold_booleans=False)
    return {tensor.name: array.reshape(len(cells), *_row_shape(tensor, len(cells[0])))}


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return a header and a line for each row: label and probability if the model has labels, then every output's values."""
    columns: list[list[str]] = []
    header: list[str] = []
    if best := predictions(response, spec):
        header += ["label", "probability"]
        columns += [[row["label"] for row in best], [repr(row["probability"]) for row in best]]
    for tensor in spec.outputs:
        array = numbers(response.outputs[tensor.name], tensor.datatype.name)
        flat = array.reshape(len(array), -1)
        header += [tensor.name if flat.shape[1] == 1 else f"{tensor.name}[{index}]" for index in range(flat.shape[1])]
        columns += [[_cell(value) for value in column] for column in flat.T]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue().encode()


def _lines(content: Content) -> list[list[str]]:
    charset = content.parameters.get("charset", "utf-8")
    try:
        text = bytes(content.body).decode("utf-8-sig" if charset.lower() in ("utf-8", "utf8") else charset)
        return [line for line in csv.reader(StringIO(text, newline=""), strict=True) if line]
    except (LookupError, UnicodeDecodeError, csv.Error) as err:
        raise DecodingError(f"body: expected CSV in charset {charset!r}: {err}") from err


def _table(lines: list[list[str]], spec: ModelSpec) -> dict[str, Array]:
    header, *rows = ([cell.strip() for cell in lines[0]], *lines[1:])
    names = [tensor.name for tensor in spec.inputs]
    if sorted(header) != sorted(names):
        raise InvalidInput(f"line 1: expected a header of {', '.join(names)} in any order; got {', '.join(header)}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DecodingError(f"line {number}: expected {len(header)} cells; got {len(row)}")
    inputs = {}
    for tensor in spec.inputs:
        column = header.index(tensor.name)
        cells = [_value(row[column], tensor, number, column) for number, row in enumerate(rows, 2)]
        inputs[tensor.name] = array_from_lists(cells, tensor, may_hold_booleans=False).reshape(-1, *tensor.shape)
    return inputs


def _row_shape(tensor: TensorSpec, cells: int) -> tuple[int, ...]:
    free = cells // tensor.fixed_size if tensor.fixed_size else 0
    return tuple(free if size < 0 else size for size in tensor.shape)


def _values(line: list[str], tensor: TensorSpec, number: int) -> list[Any]:
    unit = tensor.fixed_size
    if (len(line) != unit) if not tensor.free_axes else (unit == 0 or len(line) % unit):
        per = f"a multiple of {unit}" if tensor.free_axes else str(unit)
        raise DecodingError(f"line {number}: expected {per} cells for {tensor.describe()}; got {len(line)}")
    return [_value(cell, tensor, number, column) for column, cell in enumerate(line)]


def _value(cell: str, tensor: TensorSpec, number: int, column: int) -> Any:
    try:
        return _reader(tensor.datatype.name)(cell.strip())
    except (ValueError, KeyError) as err:
        raise DecodingError(
            f"line {number}, cell {column + 1}: expected {tensor.datatype.name} for {tensor.name!r}; got {cell!r:.60}",
        ) from err


def _reader(datatype: str) -> Callable[[str], Any]:
    if datatype == "BYTES":
        return str
    return (lambda cell: _BOOLEANS[cell.lower()]) if datatype == "BOOL" else _number


def _number(cell: str) -> int | float:
    if "_" in cell:  # Python reads 1_000; a table does not mean it
        raise ValueError(cell)
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell.strip())
    except ValueError:
        return cell.strip().lower() in _BOOLEANS
    return True


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value).lower() if isinstance(value, np.bool_) else str(value)

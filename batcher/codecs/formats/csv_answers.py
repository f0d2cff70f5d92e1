"""Answers in CSV: a line for each row, behind a header unless the client wants none.

orjson writes numbers, some rows at a time: it is quick, and each number has the fewest digits that
tell it from its neighbours. Where JSON has no number (`nan`, `inf`) the text is put in afterwards.
Cells that may need quotes (labels, BYTES) go through Python's csv module, and numbers beside them.
Of ragged rows the short ones end with empty cells, so that every line has as many cells.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

import numpy as np
import orjson

from batcher.codecs.content import Buffer
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.json_lists import texts_of
from batcher.codecs.formats.predictions import Prediction, predictions
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec

_BLOCK_CELLS = 1 << 16
"""Cells that are written at once: their texts are small beside the answer."""


def encode(response: InferenceResponse, spec: ModelSpec, with_header: bool = True) -> Buffer:
    """Return a line for each row, behind a header if it is wanted.

    A line has a label and its probability or score, if there are labels, and then all outputs.
    """
    best = predictions(response, spec)
    header = list(best[0]) if best else []
    arrays = []
    for tensor in spec.outputs:
        array = response.outputs[tensor.name]
        if is_ragged(array):
            flat = _padded(array, tensor)
        else:
            flat = plain_numbers(array, tensor.datatype.name).reshape(len(array), -1)
        header += names_of(tensor.name, flat.shape[1])
        arrays.append(flat)
    is_plain = not best and all(array.size and not array.dtype.hasobject for array in arrays)
    step = max(_BLOCK_CELLS // max(len(header), 1), 1)
    pieces = [_lines([header])] if with_header else []
    for start in range(0, len(arrays[0]), step):
        block = [array[start : start + step] for array in arrays]
        pieces.append(
            _number_lines(block) if is_plain else _lines(_rows(block, best[start : start + step]))
        )
    return b"".join(pieces)


def names_of(tensor: str, width: int) -> list[str]:
    """Return the header of a tensor that has `width` cells in a line."""
    return [tensor] if width == 1 else [f"{tensor}[{index}]" for index in range(width)]


def _padded(array: Array, tensor: TensorSpec) -> Array:
    """Return ragged rows as texts of the shape (rows, cells of the longest row)."""
    cells = np.full((len(array), max(row.size for row in array)), "", object)
    for line, row in zip(cells, array, strict=True):
        flat = plain_numbers(row, tensor.datatype.name).reshape(1, -1)
        if flat.dtype.hasobject:
            line[: row.size] = texts_of(flat)[0]
        elif flat.size:
            line[: row.size] = _number_text(flat).decode().split(",")
    return cells


def _number_lines(arrays: list[Array]) -> bytes:
    """Return the lines of arrays of numbers, each of the shape (rows, cells)."""
    texts = [_number_text(array) for array in arrays]
    if len(texts) == 1:
        return texts[0].replace(b"],[", b"\n") + b"\n"
    columns = [text.split(b"],[") for text in texts]
    return b"\n".join(map(b",".join, zip(*columns, strict=True))) + b"\n"


def _number_text(array: Array) -> bytes:
    """Return the numbers of an array of the shape (rows, cells), with `],[` between the rows."""
    text = orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return text
    # JSON has null for each number that is not finite
    parts = text.split(b"null")
    names = [str(value).encode() for value in array[~np.isfinite(array)].tolist()]
    return b"".join(part + name for part, name in zip(parts, [*names, b""], strict=True))


def _rows(arrays: list[Array], best: list[Prediction]) -> Iterator[list[str]]:
    """Yield the cells of each row."""
    columns = [
        texts_of(array).tolist()
        if array.dtype.hasobject
        else [row.split(",") for row in _number_text(array).decode().split("],[")]
        for array in arrays
        if array.shape[1]
    ]
    for index in range(len(arrays[0])):
        row = []
        if best:
            label, value = best[index].values()
            row = [label, repr(value)]
        for cells in columns:
            row += cells[index]
        yield row


def _lines(rows: Iterator[list[str]] | list[list[str]]) -> bytes:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()

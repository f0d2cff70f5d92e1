"""The requests that a tuning sends: a row of the model's sample, or rows of random values.

Where rows are padded, lengths are the first of these that there are:

    --length, or the column `length` of the trace
    those of the sample, if its rows differ in length
    `warmup_lengths`, or else `pad_sizes`, of the model
    the length of the sample

A row gets another length by being cut or repeated along its free axis. A model that makes what is
padded of a text, in `preprocess`, gets a text of as many words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from batcher.app.checking.samples import random_rows
from batcher.client.tensors import Bfloat16
from batcher.core.padding import Padding
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ConfigError
from batcher.models.blank_rows import unsized_inputs
from batcher.models.protocol import Arrays

Row = dict[str, Array]
"""The inputs of a request of one row."""


class Lengths(NamedTuple):
    """Lengths that the user says.

    Attributes:
        values: the lengths; none if the user says none.
        words: where they come from.
    """

    values: Sequence[int] = ()
    words: str = ""


def padded_rows(spec: ModelSpec, sample: Arrays | None, asked: Lengths) -> tuple[list[Row], str]:
    """Return requests of one row, and where their lengths come from; empty where rows have none.

    Raises:
        ConfigError: as `request_rows`.
    """
    rows = request_rows(spec, sample, asked.values)
    if asked.values or not spec.is_padded:
        return rows, asked.words
    if len({length_of(spec, row) for row in rows}) > 1:
        return rows, f"the {len(rows)} rows of the model's sample"
    lengths = Padding(spec).warmup_lengths
    if lengths:
        listed = ", ".join(map(str, lengths))
        return request_rows(spec, sample, lengths), f"{listed}, as the model is warmed up"
    return rows, "the one of the model's sample; say yours with --length"


def request_rows(spec: ModelSpec, sample: Arrays | None, lengths: Sequence[int]) -> list[Row]:
    """Return different requests of one row: one for each of `lengths`, or all of the sample's.

    Raises:
        ConfigError: there is no sample, and free axes have no size; or rows have no lengths.
    """
    if sample is not None:
        count = len(next(iter(sample.values())))
        rows = [
            {name: array[place : place + 1] for name, array in sample.items()}
            for place in range(count)
        ]
    elif reason := unsized_inputs(spec):
        raise ConfigError(
            f"expected a model that can be run: {reason}; add `sample: FILE` to its model.yaml, a "
            "file that could be posted to it"
        )
    else:
        rows = [dict(row) for row in random_rows(spec).own]
    filled = {tensor.name for tensor in spec.inputs if tensor.is_filled}
    rows = [{name: row[name] for name in row.keys() - filled} for row in rows]
    return [_of_length(spec, rows[0], length) for length in lengths] or rows


class Inputs:
    """The inputs of requests as the client takes them: one row after the other, again and again."""

    def __init__(self, spec: ModelSpec, rows: Sequence[Row]) -> None:
        """Make requests of `rows`."""
        self._bits = {each.name for each in spec.inputs if each.datatype.name == "BF16"}
        self._rows = cycle(rows)

    def next(self, count: int) -> Mapping[str, Any]:
        """Return the inputs of the next request, which has `count` rows."""
        row = next(self._rows)
        if count > 1:
            row = {name: np.repeat(array, count, axis=0) for name, array in row.items()}
        if not self._bits:
            return row
        return {name: Bfloat16(row[name]) if name in self._bits else row[name] for name in row}


def length_of(spec: ModelSpec, row: Row) -> int:
    """Return the length of a row; 0 where rows have none."""
    for tensor in _with_length(spec):
        if tensor.name in row:
            return _length(tensor, row[tensor.name])
    return 0


def _of_length(spec: ModelSpec, row: Row, length: int) -> Row:
    tensors = [tensor for tensor in _with_length(spec) if tensor.name in row]
    if not tensors:
        raise ConfigError(
            "--length, or lengths of a trace: expected a model whose rows are padded (`pad` in "
            "model.yaml); got one whose rows have one length"
        )
    return {**row, **{each.name: _resized(each, row[each.name], length) for each in tensors}}


def _with_length(spec: ModelSpec) -> list[TensorSpec]:
    """Return the inputs that decide about the length of a row."""
    padded = [tensor for tensor in spec.inputs if tensor.pad is not None]
    if padded or not any(tensor.pad is not None for tensor in spec.prepared):
        return padded
    return [tensor for tensor in spec.inputs if tensor.datatype.name == "BYTES"]


def _length(tensor: TensorSpec, array: Array) -> int:
    if tensor.pad is None:
        return len(array.flat[0].split())
    return int(array.shape[tensor.shape.index(-1) + 1])


def _resized(tensor: TensorSpec, array: Array, length: int) -> Array:
    if tensor.pad is None:
        words = array.flat[0].split() or [b"word"]
        text = b" ".join(words[place % len(words)] for place in range(length))
        resized: Array = np.empty(array.shape, object)
        resized.fill(text)
        return resized
    for axis, size in enumerate(tensor.shape, 1):
        if size < 0:
            array = np.take(array, np.arange(length) % array.shape[axis], axis=axis)
    return array

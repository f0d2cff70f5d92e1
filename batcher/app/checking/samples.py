"""The rows that a model is checked with: rows of its sample and variants of them, or random rows.

Rows must differ from each other: otherwise nobody would see that two answers changed places.
Yet the model must be able to take the rows. So a variant is made from a row of the sample, with the
values of that row:

- the elements of each input are rotated: variant 2 of [a, b, c, d] is [c, d, a, b];
- floats, and an integer that is alone in its input, are made smaller as well: variant t is
  multiplied by `1 - t / (2 * ROW_COUNT)`, so variant 2 by 1 - 2 / 22 = 0.909;
- a text that is alone in its input stays as it is: another text might mean nothing to the model.

The number of rows is a prime, so a model that works in blocks of 2, 4 or 8 rows meets the rows in
another order each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from batcher.codecs.formats.bfloat16 import from_float32, to_float32
from batcher.core.left_out import with_defaults
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.models.sample import Sample

ROW_COUNT = 11
"""Different rows that a model is checked with.

A prime above 7, so that a batch of up to 7 rows holds no row twice.
"""

FREE_AXIS_SIZE = 3
"""Elements along a free axis of random rows, where no `warmup_shape` sets the number."""

SEED = 20
"""Any number: random rows are the same in every check, so that a report can be repeated."""

Row = Mapping[str, Array]
"""The inputs of a request of one row; the arrays are read-only, as views of a body are."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that one model is checked with.

    Attributes:
        own: rows that the model must be able to take: those of its sample, or random rows of the
            declared dtypes.
        made: variants of the sample's rows, which the model may refuse.
        description: the origin of the rows, in words.
    """

    own: tuple[Row, ...]
    made: tuple[Row, ...]
    description: str


def rows_of_sample(sample: Sample, name: str, spec: ModelSpec) -> Rows:
    """Return the rows of the sample called `name`, and variants."""
    count = len(next(iter(sample.values())))
    own = tuple(
        _row({name: array[index : index + 1] for name, array in sample.items()})
        for index in range(min(count, ROW_COUNT))
    )
    made = tuple(_variant(own[turn % len(own)], turn, spec) for turn in range(len(own), ROW_COUNT))
    counts = _plural(len(own), "row"), _plural(len(made), "row")
    return Rows(own, made, f"{counts[0]} of {name}, and {counts[1]} made from them")


def random_rows(spec: ModelSpec) -> Rows:
    """Return rows of random values that most models can take, the same rows each time.

    Floats are 0 to 1, UINT8 0 to 255, other integers 0 or 1.
    """
    generator = np.random.default_rng(SEED)
    sent = [tensor for tensor in spec.inputs if not tensor.is_filled]
    own = tuple(
        _row(with_defaults(spec, {tensor.name: _random(tensor, generator) for tensor in sent}, 1))
        for _ in range(ROW_COUNT)
    )
    free = [tensor.name for tensor in sent if tensor.free_axes and tensor.warmup_shape is None]
    sizes = f", the free axes of {', '.join(free)} taken as {FREE_AXIS_SIZE}" if free else ""
    return Rows(
        own,
        (),
        f"{ROW_COUNT} rows of random values of the declared dtypes{sizes}; no usable `sample` is "
        "declared",
    )


def _row(inputs: Mapping[str, Array]) -> Row:
    row = {name: np.array(array) for name, array in inputs.items()}
    for array in row.values():
        array.flags.writeable = False
    return row


def _random(tensor: TensorSpec, generator: np.random.Generator) -> Array:
    sizes = tensor.warmup_shape or tensor.shape
    shape = (1, *(FREE_AXIS_SIZE if size < 0 else size for size in sizes))
    if tensor.datatype.name == "BYTES":
        texts = [b"text %d" % number for number in generator.integers(0, 1000, prod(shape))]
        return np.array(texts, object).reshape(shape)
    if tensor.datatype.name == "BF16":
        return from_float32(generator.random(shape, np.float32))
    dtype = tensor.datatype.numpy
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def _variant(row: Row, turn: int, spec: ModelSpec) -> Row:
    tensors = [tensor for tensor in spec.inputs if tensor.name in row]
    return _row(
        {
            tensor.name: row[tensor.name]
            if tensor.is_filled
            else _rotated(row[tensor.name], tensor, turn)
            for tensor in tensors
        }
    )


def _rotated(array: Array, tensor: TensorSpec, turn: int) -> Array:
    if bf16 := tensor.datatype.name == "BF16":
        array = to_float32(array)
    rotated: Array = np.roll(array.reshape(-1), turn).reshape(array.shape)
    factor = 1 - turn / (2 * ROW_COUNT)
    if array.dtype.kind == "f":
        smaller: Array = (rotated * factor).astype(array.dtype)
        return from_float32(smaller) if bf16 else smaller
    # An integer alone may be an index: a smaller index is as likely to be known to the model.
    if array.dtype.kind in "iu" and array.size == 1:
        return np.trunc(rotated * factor).astype(array.dtype)
    return rotated


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"

"""The rows that a model is checked with.

Those of its sample, others made from them, or random ones.

Rows must differ, or answers that change places would not be seen; yet they must be rows that the
model can take. So a row is made from one of the sample's with the sample's own values: its elements
are turned round, numbers are made smaller as well. A text of its own stays as it is: who knows what
it means. The number of rows is a prime, so that a model that works in blocks of 2, 4 or 8 meets
them in another order each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from batcher.codecs.content import Content
from batcher.codecs.file_names import format_of_file
from batcher.codecs.format_table import decode_body
from batcher.codecs.formats.bfloat16 import from_float32, to_float32
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_inputs
from batcher.errors import UnsupportedMediaType

ROWS = 11
"""How many different rows a model is checked with: a prime above 7, so that the batches of up to 7
hold no row twice.
"""

FREE_SIZE = 3
"""The size of a free axis of random rows where no `warmup_shape` says another."""

SEED = 20

Row = Mapping[str, Array]
"""The inputs of a request of one row, read-only, as views of a body are."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind.

    Attributes:
        own: those that the model must be able to take: of its sample, or random ones of the
            declared dtypes.
        made: those made from them, which it may refuse.
        described: what they are, in words.
    """

    own: tuple[Row, ...]
    made: tuple[Row, ...]
    described: str


def read_sample(file: Path, spec: ModelSpec) -> Rows:
    """Return the rows in `file`, read as the server reads a body of that format, and rows made from them.

    Raises:
        ClientError: it is not what the model takes; the message says what was expected and what
            came.
    """
    entry = format_of_file(file)
    if not entry.carries(spec.inputs):
        takes = ", ".join(f"{tensor.name} {tensor.describe()}" for tensor in spec.inputs)
        raise UnsupportedMediaType(
            f"{file.name}: expected a format that can carry {takes}; got {entry.media_type}"
        )
    inputs = decode_body(entry, Content(file.read_bytes(), entry.media_type), spec)
    count = check_inputs(spec, inputs)
    own = tuple(
        _row({name: array[index : index + 1] for name, array in inputs.items()})
        for index in range(min(count, ROWS))
    )
    made = tuple(_varied(own[turn % len(own)], turn, spec) for turn in range(len(own), ROWS))
    return Rows(
        own,
        made,
        f"{_plural(len(own), 'row')} of {file.name}, and {_plural(len(made), 'row')} made from "
        "them",
    )


def random_rows(spec: ModelSpec) -> Rows:
    """Return rows of tame random values, the same each time.

    Floats of 0 to 1, bytes of 0 to 255, other integers 0 or 1.
    """
    chance = np.random.default_rng(SEED)
    own = tuple(
        _row({tensor.name: _random(tensor, chance) for tensor in spec.inputs}) for _ in range(ROWS)
    )
    free = [
        tensor.name for tensor in spec.inputs if tensor.free_axes and tensor.warmup_shape is None
    ]
    sizes = f", the free axes of {', '.join(free)} taken as {FREE_SIZE}" if free else ""
    return Rows(
        own,
        (),
        f"{ROWS} rows of random values of the declared dtypes{sizes}; model.yaml declares no "
        "usable `sample`",
    )


def _row(inputs: Mapping[str, Array]) -> Row:
    row = {name: np.array(array) for name, array in inputs.items()}
    for array in row.values():
        array.flags.writeable = False
    return row


def _random(tensor: TensorSpec, chance: np.random.Generator) -> Array:
    sizes = tensor.warmup_shape or tensor.shape
    shape = (1, *(FREE_SIZE if size < 0 else size for size in sizes))
    if tensor.datatype.name == "BYTES":
        texts = [b"text %d" % number for number in chance.integers(0, 1000, prod(shape))]
        return np.array(texts, object).reshape(shape)
    if tensor.datatype.name == "BF16":
        return from_float32(chance.random(shape, np.float32))
    dtype = tensor.datatype.numpy
    if dtype.kind == "f":
        return chance.random(shape).astype(dtype)
    return chance.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def _varied(row: Row, turn: int, spec: ModelSpec) -> Row:
    return _row({tensor.name: _turned(row[tensor.name], tensor, turn) for tensor in spec.inputs})


def _turned(array: Array, tensor: TensorSpec, turn: int) -> Array:
    if bf16 := tensor.datatype.name == "BF16":
        array = to_float32(array)
    turned: Array = np.roll(array.reshape(-1), turn).reshape(array.shape)
    factor = 1 - turn / (2 * ROWS)
    if array.dtype.kind == "f":
        smaller: Array = (turned * factor).astype(array.dtype)
        return from_float32(smaller) if bf16 else smaller
    if (
        array.dtype.kind in "iu" and array.size == 1
    ):  # one number: a smaller one is as likely to be known to the model
        return np.trunc(turned * factor).astype(array.dtype)
    return turned


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"

"""A file as it is, for a model of one BYTES input: `text/plain`, and every type that nobody reads.

The body is the one element of one row: a text, a recording, a page of PDF. No other format reads
such a body for such a model, so whatever its media type says, the bytes are the model's to read. A
body of `text/plain` is recoded to UTF-8 where its charset is another one.
"""

from __future__ import annotations

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.core.copied_bytes import copied_bytes
from batcher.core.spec import Array, ModelSpec, TensorSpec


def takes_files(tensor: TensorSpec) -> bool:
    """Return whether one element can be a whole row of `tensor`, and that element is bytes."""
    return tensor.datatype.name == "BYTES" and all(size in (-1, 1) for size in tensor.shape)


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a body can hold `tensors`: exactly one, whose rows can be one file."""
    return len(tensors) == 1 and takes_files(tensors[0])


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the body as the only row."""
    return {spec.inputs[0].name: rows_from_files([content.body], spec.inputs[0])}


def decode_text(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the body, in UTF-8, as the only row. Raises DecodingError: the charset is wrong."""
    return {spec.inputs[0].name: rows_from_files([content.text()], spec.inputs[0])}


def rows_from_files(files: list[Buffer], tensor: TensorSpec) -> Array:
    """Return files as rows of `tensor`: shape (files, *row shape), all axes of a row of size 1."""
    flat = np.empty(len(files), object)
    flat[:] = [copied_bytes(file) for file in files]
    rows: Array = flat.reshape(len(files), *(1 for _ in tensor.shape))
    return rows

"""`application/octet-stream`: the one tensor, little-endian, row-major; the row count follows from the length."""

from __future__ import annotations

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.errors import DecodingError
from batcher.request import InferenceResponse
from batcher.spec import Array, ModelSpec, TensorSpec


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether the format can hold these tensors: exactly one, of fixed item size, with at most one free axis."""
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES" and tensors[0].free_axes <= 1


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return a view of the body; with a free axis the body is one row, which the length measures.

    Raises:
        DecodingError: the length is not a whole number of rows.
    """
    tensor = spec.inputs[0]
    dtype, length = tensor.datatype.numpy, len(content.body)
    unit = dtype.itemsize * tensor.fixed_size
    if not length or unit == 0 or length % unit:
        per = "element of the free axis" if tensor.free_axes else "row"
        raise DecodingError(
            f"input {tensor.name!r}: expected {tensor.describe()}, a multiple of {unit} bytes a {per}; got {length} bytes",
        )
    count = length // unit
    shape = tuple(count if size < 0 else size for size in tensor.shape)
    array = np.frombuffer(content.body, dtype)
    return {tensor.name: array.reshape((1, *shape) if tensor.free_axes else (count, *shape))}


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the bytes of the one output."""
    array = response.outputs[spec.outputs[0].name]
    return array.data.cast("B") if array.flags.c_contiguous and array.size else array.tobytes()

"""`application/octet-stream`: the bytes of one tensor, little-endian and row-major.

The number of rows follows from the length. For a model with a free axis the body is one row, and
the length gives the size of that axis:

    rows      = length / bytes of a row                     without a free axis
    free axis = length / bytes of one step along the axis   with a free axis

Example: an input FP32[-1,4] has rows of 16 bytes, so a body of 48 bytes is 3 rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.uneven_rows import even_rows
from batcher.core.request import InferenceResponse, OutputRows, bytes_or_view
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

_SMALL_ROW_BYTES = 4096
"""Largest row that is cut out of one copy of the whole batch's bytes.

The answer with larger rows is a view of the output where it lies.
"""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a body can hold `tensors`.

    A body can hold exactly one tensor, of fixed item size and with at most one free axis.
    """
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES" and tensors[0].free_axes <= 1


def bind(spec: ModelSpec) -> Callable[[Buffer], dict[str, Array]]:
    """Return a `decode` for the model `spec` whose only argument is the body."""
    tensor = spec.inputs[0]
    name, dtype = tensor.name, tensor.datatype.numpy
    # all that does not depend on the body is looked up once, here, not in each request
    one_row, ndarray = (1, *tensor.shape), np.ndarray
    row_bytes = 0 if tensor.free_axes else tensor.row_bytes

    def decode_rows(body: Buffer) -> dict[str, Array]:
        if not body:
            raise DecodingError(
                "body: expected application/octet-stream; got 0 bytes, an empty body"
            )
        # the usual request is one row, and needs no arithmetic
        if len(body) == row_bytes:
            return {name: ndarray(one_row, dtype, body)}
        return _rows(body, tensor)

    if tensor.datatype.name == "BOOL":
        return lambda body: {
            name: checked_booleans(array, name) for name, array in decode_rows(body).items()
        }
    return decode_rows


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the tensor as a view of the body.

    Raises:
        DecodingError: the length is not a whole number of rows, or of steps along the free axis; or
            a boolean is neither 0 nor 1.
    """
    return bind(spec)(content.body)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the bytes of the one output."""
    return output_bytes(response, spec.outputs[0])


def output_bytes(response: InferenceResponse, tensor: TensorSpec) -> Buffer:
    """Return the bytes of the output `tensor`, of fixed item size, little-endian and row-major.

    The bytes are a view of the output where its rows are large.
    """
    outputs = response.outputs
    if isinstance(outputs, OutputRows) and tensor.row_bytes <= _SMALL_ROW_BYTES:
        return outputs.tobytes(tensor.name)
    return bytes_or_view(even_rows(outputs[tensor.name], tensor))


def _rows(body: Buffer, tensor: TensorSpec) -> dict[str, Array]:
    """Return a view of a body of any number of rows, or of one row with a free axis."""
    dtype, length = tensor.datatype.numpy, len(body)
    unit = dtype.itemsize * tensor.fixed_size
    if not length or unit == 0 or length % unit:
        per = "element of the free axis" if tensor.free_axes else "row"
        raise DecodingError(
            f"input {tensor.name!r}: expected {tensor.describe()}, a multiple of {unit} bytes a "
            f"{per}; got {length} bytes",
        )
    count = length // unit
    shape = tuple(count if size < 0 else size for size in tensor.shape)
    array = np.frombuffer(body, dtype)
    return {tensor.name: array.reshape((1, *shape) if tensor.free_axes else (count, *shape))}

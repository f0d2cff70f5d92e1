"""`application/octet-stream`: the one tensor, little-endian, row-major.

The row count follows from the length.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.core.request import InferenceResponse, OutputRows
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

_SMALL_ROW = 4096
"""Up to this many bytes a row is cut out of one copy of the whole batch's bytes.

Larger ones are written where they lie.
"""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether the format can hold these tensors.

    Exactly one, of fixed item size, with at most one free axis.
    """
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES" and tensors[0].free_axes <= 1


def bind(spec: ModelSpec) -> Callable[[Buffer], dict[str, Array]]:
    """Return `decode` for bodies of the model `spec`, with everything worked out that does not depend on the body."""
    tensor = spec.inputs[0]
    name, dtype, one_row, ndarray = (
        tensor.name,
        tensor.datatype.numpy,
        (1, *tensor.shape),
        np.ndarray,
    )
    row_bytes = 0 if tensor.free_axes else tensor.row_bytes

    def decode_rows(body: Buffer) -> dict[str, Array]:
        if not body:
            raise DecodingError(
                "body: expected application/octet-stream; got 0 bytes, an empty body"
            )
        if len(body) == row_bytes:
            return {name: ndarray(one_row, dtype, body)}
        return _measured(body, tensor)

    if tensor.datatype.name == "BOOL":
        return lambda body: {
            name: checked_booleans(array, name) for name, array in decode_rows(body).items()
        }
    return decode_rows


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return a view of the body; with a free axis the body is one row, which the length measures.

    Raises:
        DecodingError: the length is not a whole number of rows.
    """
    return bind(spec)(content.body)


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the bytes of the one output."""
    return output_bytes(response, spec.outputs[0])


def output_bytes(response: InferenceResponse, tensor: TensorSpec) -> Buffer:
    """Return the bytes of the output `tensor`, of fixed item size, little-endian and row-major.

    A view where rows are large.
    """
    outputs = response.outputs
    if isinstance(outputs, OutputRows) and tensor.row_bytes <= _SMALL_ROW:
        return outputs.tobytes(tensor.name)
    array = outputs[tensor.name]
    return array.data.cast("B") if array.flags.c_contiguous and array.size else array.tobytes()


def _measured(body: Buffer, tensor: TensorSpec) -> dict[str, Array]:
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

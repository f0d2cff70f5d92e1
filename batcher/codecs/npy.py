"""`application/x-npy`: numpy's own file format, one array, never a pickle."""

from __future__ import annotations

from io import BytesIO
from math import prod

import numpy as np
from numpy.lib import format as npy_format

from batcher.codecs.content import Buffer, Content
from batcher.errors import DecodingError
from batcher.request import InferenceResponse
from batcher.spec import Array, ModelSpec, TensorSpec

_HEADER_LIMIT = 10_000
"""Most bytes of the header that are parsed, as numpy itself advises against hostile ones."""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether the format can hold these tensors: exactly one, of fixed item size."""
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES"


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return a view of the array in the body; a big-endian one is turned round.

    Raises:
        DecodingError: not a .npy file, one of objects, or one whose data does not have the promised length.
    """
    file = BytesIO(content.body)
    try:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran_order, dtype = read(file, max_header_size=_HEADER_LIMIT)
    except Exception as err:  # numpy's header reader raises whatever a hostile header makes its parts raise
        raise DecodingError(f"body: expected a .npy file; got something else: {err}") from err
    name, offset = spec.inputs[0].name, file.tell()
    if dtype.hasobject or dtype.names or dtype.itemsize == 0:
        raise DecodingError(f"input {name!r}: expected an array of numbers; got dtype {dtype}")
    if any(size < 0 for size in shape) or prod(shape) * dtype.itemsize != len(content.body) - offset:
        raise DecodingError(
            f"input {name!r}: expected {prod(shape) * dtype.itemsize} bytes for {dtype}{list(shape)}; "
            f"got {len(content.body) - offset}",
        )
    flat = np.frombuffer(content.body, dtype, offset=offset)
    array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    return {name: array.astype(dtype.newbyteorder("<"), copy=False)}


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the one output as a .npy file."""
    file = BytesIO()
    npy_format.write_array(file, response.outputs[spec.outputs[0].name], allow_pickle=False)
    return file.getvalue()

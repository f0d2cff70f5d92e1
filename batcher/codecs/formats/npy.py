"""`application/x-npy`: numpy's own file format, one array, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.nested_lists import MAX_DEPTH
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

_HEADER_LIMIT = 10_000
"""Most bytes of the header that are parsed, as numpy itself advises against hostile ones."""

_READERS: dict[Any, Callable[..., Any]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    (
        3,
        0,
        # the same but for UTF-8 in field names, which are refused anyhow
    ): npy_format.read_array_header_2_0,
}


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether the format can hold these tensors: exactly one, of fixed item size."""
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES"


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return a view of the array in the body; a big-endian one is turned round.

    Raises:
        DecodingError: not a .npy file, one of objects, or one whose data does not have the promised
            length.
    """
    name = spec.inputs[0].name
    shape, fortran_order, dtype, offset = _header(content)
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise DecodingError(f"input {name!r}: expected an array of numbers; got dtype {dtype}")
    if len(shape) > MAX_DEPTH or any(type(size) is not int or size < 0 for size in shape):
        raise DecodingError(
            f"input {name!r}: expected a shape of at most {MAX_DEPTH} sizes; got {shape!r:.80}"
        )
    expected, got = prod(shape) * dtype.itemsize, len(content.body) - offset
    if expected != got:
        raise DecodingError(
            f"input {name!r}: expected {expected} bytes for {dtype}{list(shape)}; got {got}"
        )
    try:
        flat = np.frombuffer(content.body, dtype, offset=offset)
        array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    except (ValueError, OverflowError) as err:  # no elements, but axes beyond what numpy can count
        raise DecodingError(
            f"input {name!r}: expected an array of numbers; got shape {shape!r:.80}: {err}"
        ) from err
    return {name: checked_booleans(array.astype(dtype.newbyteorder("<"), copy=False), name)}


def _header(content: Content) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether it is in Fortran order, dtype, and where the data begins."""
    file = BytesIO(content.body)
    try:
        read = _READERS[npy_format.read_magic(file)]
        shape, fortran_order, dtype = read(file, max_header_size=_HEADER_LIMIT)
    except KeyError as err:
        raise DecodingError(
            f"body: expected version 1.0, 2.0 or 3.0 of the .npy format; got {err}"
        ) from err
    except (
        Exception
    ) as err:  # numpy's header reader raises whatever a hostile header makes its parts raise
        raise DecodingError(f"body: expected a .npy file; got something else: {err}") from err
    return shape, fortran_order, dtype, file.tell()


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the one output as a .npy file."""
    file = BytesIO()
    npy_format.write_array(file, response.outputs[spec.outputs[0].name], allow_pickle=False)
    return file.getvalue()

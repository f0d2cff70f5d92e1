"""`application/x-npy`: one array in numpy's own file format, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.nested_lists import MAX_DEPTH
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import DecodingError

MAX_HEADER_BYTES = 10_000
"""Longest header that is parsed; numpy advises this limit against hostile headers."""

_READERS: dict[Any, Callable[..., Any]] = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    # version 3 differs only by UTF-8 in field names, and arrays with fields are refused anyhow
    (3, 0): npy_format.read_array_header_2_0,
}


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a file can hold these tensors: exactly one, of fixed item size."""
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES"


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the array in the body: a view, or a copy where the file is big-endian.

    Raises:
        DecodingError: the body is not a .npy file, holds objects, or has more or less data than its
            header says.
    """
    name = spec.inputs[0].name
    header = _header(content)
    _check_header(header, len(content.body), name)
    shape, dtype = header.shape, header.dtype
    try:
        flat = np.frombuffer(content.body, dtype, offset=header.data_start)
        array = flat.reshape(shape[::-1]).T if header.fortran_order else flat.reshape(shape)
    # a shape without elements may still have axes beyond what numpy can count
    except (ValueError, OverflowError) as err:
        raise DecodingError(
            f"input {name!r}: expected an array of numbers; got shape {shape!r:.80}: {err}"
        ) from err
    return {name: checked_booleans(array.astype(dtype.newbyteorder("<"), copy=False), name)}


class _Header(NamedTuple):
    """What a file says of its array.

    Attributes:
        shape: sizes of the axes, not yet checked.
        fortran_order: whether the first axis, not the last, is the one whose elements are adjacent.
        dtype: dtype of the elements, not yet checked.
        data_start: bytes of the file before the data.
    """

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    data_start: int


def _header(content: Content) -> _Header:
    file = BytesIO(content.body)
    try:
        read = _READERS[npy_format.read_magic(file)]
        shape, fortran_order, dtype = read(file, max_header_size=MAX_HEADER_BYTES)
    except KeyError as err:
        raise DecodingError(
            f"body: expected version 1.0, 2.0 or 3.0 of the .npy format; got {err}"
        ) from err
    # a hostile header makes numpy's reader raise errors of any class
    except Exception as err:
        raise DecodingError(f"body: expected a .npy file; got something else: {err}") from err
    return _Header(shape, fortran_order, dtype, file.tell())


def _check_header(header: _Header, length: int, name: str) -> None:
    """Check the header of a file of `length` bytes for the input `name`. Raises DecodingError."""
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise DecodingError(f"input {name!r}: expected an array of numbers; got dtype {dtype}")
    if len(shape) > MAX_DEPTH or any(type(size) is not int or size < 0 for size in shape):
        raise DecodingError(
            f"input {name!r}: expected a shape of at most {MAX_DEPTH} sizes; got {shape!r:.80}"
        )
    expected, got = prod(shape) * dtype.itemsize, length - header.data_start
    if expected != got:
        raise DecodingError(
            f"input {name!r}: expected {expected} bytes for {dtype}{list(shape)}; got {got}"
        )


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the one output as a .npy file."""
    file = BytesIO()
    npy_format.write_array(file, response.outputs[spec.outputs[0].name], allow_pickle=False)
    return file.getvalue()

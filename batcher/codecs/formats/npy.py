"""`application/x-npy`: one array in numpy's own file format, never a pickle."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from math import prod
from struct import Struct
from struct import error as struct_error
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.booleans import checked_booleans
from batcher.codecs.formats.octet_stream import output_bytes
from batcher.codecs.formats.uneven_rows import even_rows
from batcher.codecs.joining import joined
from batcher.core.error_text import brief
from batcher.core.request import InferenceResponse
from batcher.core.shapes import checked_shape
from batcher.core.spec import Array, ModelSpec, TensorSpec, dtype_text, shape_text
from batcher.errors import DecodingError

MAX_PADDED_HEADER_BYTES = (1 << 16) - 1
"""Longest header with the spaces at its end: what version 1.0 can hold."""

MAX_HEADER_BYTES = 1024
"""Longest header that is parsed, the spaces at its end not counted.

numpy evaluates a header as Python, which takes a millisecond for a hostile header of a few
kilobytes. 32 axes of 10 digits take 400 bytes.
"""

_VERSIONS: dict[tuple[int, int], tuple[Struct, Callable[..., Any]]] = {
    (1, 0): (Struct("<H"), npy_format.read_array_header_1_0),
    (2, 0): (Struct("<I"), npy_format.read_array_header_2_0),
    # version 3 differs only by UTF-8 in field names, and arrays with fields are refused anyhow
    (3, 0): (Struct("<I"), npy_format.read_array_header_2_0),
}
"""By version: how the header's length is written, and numpy's reader of the header."""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a file can hold these tensors: exactly one, of fixed item size."""
    return len(tensors) == 1 and tensors[0].datatype.name != "BYTES"


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the array in the body: a view, or a copy where the file is big-endian.

    Raises:
        DecodingError: the body is not a .npy file, holds objects, or has more or less data than its
            header says.
        InvalidInput: the shape is none, or is beyond a limit.
    """
    name = spec.inputs[0].name
    return {name: array_of_file(content.body, name)}


def array_of_file(body: Buffer, name: str) -> Array:
    """Return the array in a file for the input `name`; a view, and errors, as `decode` says."""
    header = _header(body)
    _check_header(header, len(body), name)
    shape, dtype = header.shape, header.dtype
    flat = np.frombuffer(body, dtype, offset=header.data_start)
    array = flat.reshape(shape[::-1]).T if header.fortran_order else flat.reshape(shape)
    return checked_booleans(array.astype(dtype.newbyteorder("<"), copy=False), name)


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


def _header(body: Buffer) -> _Header:
    """Return the header of a file, its values not yet checked. Raises DecodingError."""
    try:
        version = npy_format.read_magic(BytesIO(bytes(body[: npy_format.MAGIC_LEN])))
        number, read = _VERSIONS[version]
        (length,) = number.unpack_from(body, npy_format.MAGIC_LEN)
    except KeyError as err:
        raise DecodingError(
            f"body: expected version 1.0, 2.0 or 3.0 of the .npy format; got {err}"
        ) from err
    except (ValueError, struct_error) as err:
        raise DecodingError("body: expected a .npy file; got something else") from err
    begin = npy_format.MAGIC_LEN + number.size
    # some writers leave room for a longer header
    text = bytes(body[begin : begin + min(length, MAX_PADDED_HEADER_BYTES)]).rstrip(b" \n")
    if len(text) > MAX_HEADER_BYTES or length > MAX_PADDED_HEADER_BYTES:
        expected = f"at most {MAX_HEADER_BYTES} bytes, with spaces {MAX_PADDED_HEADER_BYTES}"
        raise DecodingError(f"body: expected a .npy header of {expected}; got {length}")
    try:
        shape, fortran_order, dtype = read(BytesIO(number.pack(len(text)) + text))
    # a hostile header makes numpy's reader raise errors of any class
    except Exception as err:
        raise DecodingError(f"body: expected the header of a .npy file; got {brief(text)}") from err
    return _Header(shape, fortran_order, dtype, min(begin + length, len(body)))


def _check_header(header: _Header, length: int, name: str) -> None:
    """Check the header of a file of `length` bytes for the input `name`.

    Raises:
        DecodingError: the elements are not numbers, or there are more or fewer than the shape says.
        InvalidInput: the shape is none, or is beyond a limit.
    """
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.itemsize == 0:
        raise DecodingError(f"input {name!r}: expected an array of numbers; got dtype {dtype}")
    checked_shape(shape, dtype.itemsize, f"input {name!r}")
    expected, got = prod(shape) * dtype.itemsize, length - header.data_start
    if expected != got:
        raise DecodingError(
            f"input {name!r}: expected {expected} bytes for {dtype_text(dtype)}"
            f"{shape_text(shape)}; got {got}"
        )


def encode(response: InferenceResponse, spec: ModelSpec) -> Buffer:
    """Return the one output as a .npy file."""
    file = BytesIO()
    tensor = spec.outputs[0]
    array = even_rows(response.outputs[tensor.name], tensor)
    npy_format.write_array_header_1_0(
        file,
        {
            "descr": npy_format.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": array.shape,
        },
    )
    return joined((file.getvalue(), output_bytes(response, tensor)))

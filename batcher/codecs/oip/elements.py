"""BYTES tensors in binary: the elements one behind the other, in row-major order.

Each element is a little-endian length of 4 bytes, and then as many bytes.

This module is not compiled: while a long loop of interpreted Python runs, the interpreter switches
to other threads.
"""

from __future__ import annotations

from math import prod
from struct import Struct

import numpy as np

from batcher.codecs.content import Buffer
from batcher.core.copied_bytes import copied_bytes
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.element_sizes import bytes_of_packed_elements, pieces_of
from batcher.core.spec import Array
from batcher.errors import DecodingError, NotAcceptable

_LENGTH = Struct("<I")


def check_elements(count: int, nbytes: int, limits: DecodingLimits, name: str) -> None:
    """Check that `count` elements in `nbytes` bytes are within `limits`, before they are objects.

    Raises:
        TooLarge: their objects would take more bytes than the limits allow.
    """
    limits.check(0, bytes_of_packed_elements(count, nbytes, _LENGTH.size), name)


def from_elements(data: Buffer, shape: tuple[int, ...], name: str) -> Array:
    """Return the elements of `data` as an object array of `shape`.

    Raises:
        DecodingError: there are more or fewer elements than `shape` says, or the last element is
            cut off.
    """
    count, end = prod(shape), len(data)
    # before anything of that size is allocated
    if count * _LENGTH.size > end:
        raise _wrong_length(name, count, f"{end} bytes, too few to hold them")
    flat = np.empty(count, object)
    start = 0
    for index in range(count):
        begin = start + _LENGTH.size
        if begin > end or (start := begin + _LENGTH.unpack_from(data, start)[0]) > end:
            raise _wrong_length(name, count, f"{end} bytes, which end within element {index}")
        flat[index] = copied_bytes(data[begin:start])
    if start < end:
        raise _wrong_length(name, count, f"{end - start} bytes behind the last")
    return flat.reshape(shape)


def to_elements(array: Array) -> bytes:
    """Return the elements of `array`, an object array of `bytes` or text, row-major.

    Other threads run between two pieces of `pieces_of`.
    """
    data = bytearray()
    for piece in pieces_of(array):
        values = [each if isinstance(each, bytes) else str(each).encode() for each in piece]
        parts = [b""] * (2 * len(values))
        parts[::2] = map(_LENGTH.pack, map(len, values))
        parts[1::2] = values
        data += b"".join(parts)
    return copied_bytes(data)


def texts(array: Array) -> list[str]:
    """Return the elements of `array` as text, row-major.

    Raises:
        NotAcceptable: an element is not text, and JSON cannot hold other bytes.
    """
    try:
        return [
            element.decode() if isinstance(element, bytes) else str(element)
            for element in array.ravel().tolist()
        ]
    except UnicodeDecodeError as err:
        raise NotAcceptable(
            f"expected `binary_data` for BYTES that are not UTF-8; got JSON: {err.object[:40]!r}"
        ) from err


def _wrong_length(name: str, count: int, found: str) -> DecodingError:
    return DecodingError(f"input {name!r}: expected {count} BYTES elements; got {found}")

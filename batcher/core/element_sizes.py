"""How many bytes the elements of BYTES tensors take, of which there may be millions.

To add them up costs a step for each element: the loop cannot do that for a large body. So a body
that is read away from the loop is measured there, and its arrays bring their size along; and an
answer, which exists already, is estimated by some of its elements.

This module is not compiled: while a long loop of interpreted Python runs, the interpreter switches
to other threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from sys import getsizeof
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.generic]

_OBJECT_BYTES = getsizeof(b"")
"""Bytes of an element without content."""

_REFERENCE_BYTES = np.dtype("O").itemsize
"""Bytes of an array of objects for each element."""

LEAST_ELEMENT_BYTES = _REFERENCE_BYTES + _OBJECT_BYTES
"""Bytes that an element takes at least, together with its place in the array."""

_LENGTH_BYTES = 8
"""Bytes of an element's length on its way to another process; in an answer it takes fewer."""

PIECE_ELEMENTS = 1 << 13
"""Elements of one step: a step of C, which holds the interpreter lock, takes some 0.2 ms."""

SAMPLED_ELEMENTS = 1 << 12
"""Most elements of an array that an estimate looks at."""


class SizedArrays(dict[str, _Array]):
    """Arrays by name, together with the bytes that they occupy.

    Attributes:
        nbytes: bytes of the arrays, the elements of object arrays included.
    """

    nbytes = 0


def sized(arrays: Mapping[str, _Array]) -> Mapping[str, _Array]:
    """Return `arrays` together with their size if they hold BYTES elements. Any thread."""
    if not any(array.dtype.hasobject for array in arrays.values()):
        return arrays
    result = SizedArrays(arrays)
    result.nbytes = sum(map(_exact_nbytes, arrays.values()))
    return result


def about_nbytes(arrays: Mapping[str, _Array]) -> int:
    """Return about how many bytes `arrays` occupy, the elements of object arrays included.

    At most SAMPLED_ELEMENTS of an array are looked at, and stand for the others. Any thread.
    """
    return sum(map(_about_nbytes, arrays.values()))


def about_written_nbytes(arrays: Mapping[str, _Array]) -> int:
    """Return about how many bytes `arrays` take once they are written, as `about_nbytes` does.

    An element is written as its length and its bytes. Any thread.
    """
    return sum(map(_about_written_nbytes, arrays.values()))


def bytes_of_elements(elements: list[Any]) -> int:
    """Return the bytes that the elements of an object array occupy: `bytes`, or ragged rows."""
    if elements and isinstance(elements[0], np.ndarray):
        return sum(map(_exact_nbytes, elements))
    try:
        # `getsizeof` takes four times as long for millions of elements.
        return len(elements) * _OBJECT_BYTES + sum(map(len, elements))
    except TypeError:  # a model may put anything into its outputs
        return sum(map(getsizeof, elements))


def bytes_of_packed_elements(count: int, nbytes: int, length_bytes: int) -> int:
    """Return the bytes that `count` BYTES elements occupy in an array.

    In `nbytes` bytes they lie one behind the other, each after a length of `length_bytes` bytes.
    """
    return nbytes + count * (LEAST_ELEMENT_BYTES - length_bytes)


def pieces_of(array: _Array) -> Iterator[list[bytes]]:
    """Yield the elements of an object array, row-major, some at a time. Any thread."""
    flat = array.reshape(-1)
    for start in range(0, len(flat), PIECE_ELEMENTS):
        yield flat[start : start + PIECE_ELEMENTS].tolist()


def _exact_nbytes(array: _Array) -> int:
    if not array.dtype.hasobject:
        return array.nbytes
    return array.nbytes + sum(map(bytes_of_elements, pieces_of(array)))


def _about_nbytes(array: _Array) -> int:
    if not array.dtype.hasobject or not array.size:
        return array.nbytes
    looked_at = _some_elements(array)
    return array.nbytes + bytes_of_elements(looked_at) * array.size // len(looked_at)


def _about_written_nbytes(array: _Array) -> int:
    if not array.dtype.hasobject or not array.size:
        return array.nbytes
    looked_at = _some_elements(array)
    nbytes = bytes_of_elements(looked_at)
    if isinstance(looked_at[0], bytes):
        nbytes -= len(looked_at) * _OBJECT_BYTES
    return array.size * _LENGTH_BYTES + nbytes * array.size // len(looked_at)


def _some_elements(array: _Array) -> list[Any]:
    # `flat` steps through an array of any layout, and copies nothing.
    elements: list[Any] = array.flat[:: -(-array.size // SAMPLED_ELEMENTS)].tolist()
    return elements

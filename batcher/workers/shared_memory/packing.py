"""Arrays in shared memory: each row-major at an aligned place, and a table that says where.

| array | in memory | when read |
|---|---|---|
| BYTES, that is of objects | the lengths of the elements as uint64, then the elements | copied |
| ragged rows (`core/ragged.py`) | the elements of all rows, one row behind the other | as those |
| any other | its bytes | a writable view |

Nothing is pickled but the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import Array
from batcher.workers.shared_memory.slots import Slot

_ALIGNMENT_BYTES = 64
"""A cache line, and the widest vector there is."""

_LENGTH_BYTES = 8
"""Bytes of the length of an element, a uint64."""


class ArrayPlace(NamedTuple):
    """Where an array lies.

    Attributes:
        name: name of the array.
        dtype: its dtype, as text if the text says all.
        shape: its shape.
        offset: bytes from the beginning of the slot.
        nbytes: bytes that it takes there.
        rows: shapes of its rows, if the rows are ragged. `shape` is then that of all elements.
    """

    name: str
    dtype: str | np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    rows: tuple[tuple[int, ...], ...] = ()


class Packer:
    """Puts arrays into a slot, one behind the other. Any one thread.

    Attributes:
        end: bytes of the slot that are taken.
    """

    def __init__(self, slot: Slot, end: int = 0) -> None:
        """Begin behind the first `end` bytes of `slot`. Any thread."""
        self.end = end
        self._slot = slot
        self._places: dict[str, ArrayPlace] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the memory for the array `name`, to be filled.

        For objects, whose size is not known yet, that is memory outside the slot. Any one thread.
        """
        if dtype.hasobject:
            return np.empty(shape, dtype)
        place = self._place(name, shape, dtype, prod(shape) * dtype.itemsize)
        return np.ndarray(shape, dtype, self._slot.memory, place.offset)

    def table(self, arrays: Mapping[str, Array]) -> list[ArrayPlace]:
        """Return where each of `arrays` lies.

        An array without a place by `allocate` is copied into the slot now.

        Raises:
            TypeError: an array of objects holds something other than bytes.

        Any one thread.
        """
        for name, array in arrays.items():
            if is_ragged(array):
                self._put(name, np.concatenate([row.ravel() for row in array]))
                shapes = tuple(row.shape for row in array)
                self._places[name] = self._places[name]._replace(rows=shapes)
            elif name not in self._places:
                self._put(name, array)
        return [self._places[name] for name in arrays]

    def _put(self, name: str, array: Array) -> None:
        """Write an array that is not ragged. Any one thread."""
        if array.dtype.hasobject:
            self._put_bytes(name, array)
        else:
            self.allocate(name, array.shape, array.dtype)[...] = array

    def _place(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int
    ) -> ArrayPlace:
        """Return a place of `nbytes` bytes behind the others. Any one thread."""
        offset = -(-self.end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self.end = offset + nbytes
        self._slot.reserve(self.end)
        # Of a dtype that is not built in, such as a structured one, the text does not say all.
        written = dtype.str if dtype.isbuiltin == 1 else dtype
        place = self._places[name] = ArrayPlace(name, written, shape, offset, nbytes)
        return place

    def _put_bytes(self, name: str, array: Array) -> None:
        """Write an array of objects that are bytes. Any one thread."""
        elements = array.ravel().tolist()
        for element in elements:
            if not isinstance(element, bytes):
                raise TypeError(
                    f"{name!r}: expected objects that are bytes; got {type(element).__name__}"
                )
        lengths = np.fromiter(map(len, elements), np.uint64, len(elements)).tobytes()
        content = lengths + b"".join(elements)
        place = self._place(name, array.shape, array.dtype, len(content))
        self._slot.memory.data[place.offset : self.end] = content


def unpack(table: Sequence[ArrayPlace], memory: Array) -> dict[str, Array]:
    """Return the arrays that lie in `memory`, the bytes of a slot.

    All but BYTES are writable views of `memory`. Any thread.
    """
    return {place.name: _array(place, memory) for place in table}


def _array(place: ArrayPlace, memory: Array) -> Array:
    """Return one array, a view unless it is of objects. Any thread."""
    dtype = np.dtype(place.dtype)
    array: Array = (
        _bytes(place, memory)
        if dtype.hasobject
        else np.ndarray(place.shape, dtype, memory, place.offset)
    )
    return _uneven(array, place.rows) if place.rows else array


def _uneven(flat: Array, shapes: Sequence[tuple[int, ...]]) -> Array:
    """Return ragged rows of `shapes`, whose elements lie one behind the other. Any thread."""
    ends = np.cumsum([prod(shape) for shape in shapes])[:-1]
    pieces = np.split(flat, ends)
    return ragged([piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)])


def _bytes(place: ArrayPlace, memory: Array) -> Array:
    """Return an array of objects that are bytes, copied. Any thread."""
    content = memory[place.offset : place.offset + place.nbytes].tobytes()
    count = prod(place.shape)
    first = _LENGTH_BYTES * count
    ends = np.frombuffer(content, np.uint64, count).cumsum() + np.uint64(first)
    array = np.empty(count, object)
    array[:] = [content[start:end] for start, end in pairwise([first, *ends.tolist()])]
    return array.reshape(place.shape)

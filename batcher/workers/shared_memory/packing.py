"""Arrays in shared memory.

Each row-major at an aligned place of its own, and a table that says where.

BYTES, arrays of objects, go in as the lengths of their elements, then the elements, and come out
copied; everything else comes out as a view. Nothing is pickled but the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from batcher.core.spec import Array
from batcher.workers.shared_memory.slots import Slot

_ALIGNED = 64
"""Bytes: a cache line, and the widest vector there is."""


class Place(NamedTuple):
    """Where an array lies.

    Attributes:
        name: of the array.
        dtype: its dtype, as text if the text says all.
        shape: its shape.
        offset: bytes from the beginning of the slot.
        nbytes: bytes that it takes there.
    """

    name: str
    dtype: str | np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Packer:
    """Puts arrays into a slot, one behind the other. Any one thread.

    Attributes:
        end: bytes of the slot that are taken.
    """

    def __init__(self, slot: Slot, end: int = 0) -> None:
        """Begin behind the first `end` bytes of `slot`."""
        self.end = end
        self._slot = slot
        self._places: dict[str, Place] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the place for the array `name`, to be filled.

        Of objects, whose size is not known yet, memory elsewhere.
        """
        if dtype.hasobject:
            return np.empty(shape, dtype)
        place = self._place(name, shape, dtype, prod(shape) * dtype.itemsize)
        return np.ndarray(shape, dtype, self._slot.memory, place.offset)

    def table(self, arrays: Mapping[str, Array]) -> list[Place]:
        """Return where each of `arrays` lies; what was not allocated here is put in now.

        Raises:
            TypeError: an array of objects holds something other than bytes.
        """
        for name, array in arrays.items():
            if array.dtype.hasobject:
                self._put_bytes(name, array)
            elif name not in self._places:
                self.allocate(name, array.shape, array.dtype)[...] = array
        return [self._places[name] for name in arrays]

    def _place(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> Place:
        offset = -(-self.end // _ALIGNED) * _ALIGNED
        self.end = offset + nbytes
        self._slot.reserve(self.end)
        told = dtype.str if dtype.isbuiltin == 1 else dtype
        place = self._places[name] = Place(name, told, shape, offset, nbytes)
        return place

    def _put_bytes(self, name: str, array: Array) -> None:
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


def unpack(table: Sequence[Place], memory: Array) -> dict[str, Array]:
    """Return the arrays that lie in `memory`, the bytes of a slot.

    All but BYTES as writable views. Any thread.
    """
    return {place.name: _array(place, memory) for place in table}


def _array(place: Place, memory: Array) -> Array:
    dtype = np.dtype(place.dtype)
    if dtype.hasobject:
        return _bytes(place, memory)
    return np.ndarray(place.shape, dtype, memory, place.offset)


def _bytes(place: Place, memory: Array) -> Array:
    content = memory[place.offset : place.offset + place.nbytes].tobytes()
    count = prod(place.shape)
    ends = np.frombuffer(content, np.uint64, count).cumsum() + np.uint64(8 * count)
    array = np.empty(count, object)
    array[:] = [content[start:end] for start, end in pairwise([8 * count, *ends.tolist()])]
    return array.reshape(place.shape)

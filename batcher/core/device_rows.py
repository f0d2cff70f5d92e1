"""Rows that lie on a device as well as in the memory of the host.

An answer always comes to the host: clients, conditions and code read it there. Where the next model
of a pipeline computes on the same device, the model that answers also keeps its rows there, and the
next model takes them from the device, without a copy from the host.

    model A       an array on the host, and its twin on the device      `note_twin`
    pipeline      a view of the array, and where in the twin it lies    `rows_on_device`
    model B       inputs of a request, and where their twins lie        `InputsOnDevice`

An array is known by the object that owns its memory, and by its place in that memory. So a view
finds its own rows in the twin, whatever rows of the batch it has, and a copy or a cast of an array
finds none: then the rows come from the host. A twin lives as long as the array or as somebody who
has found it, so it is gone with the request.

Refused: to look for the twins of the inputs of every request. A program that asks a model itself
may write into the answer of another model before, and a twin does not change with its array. So
the pipeline alone looks, at the moment of an answer, and hands over what it has found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import ref

import numpy as np

from batcher.core.spec import Array


class RowsOnDevice(NamedTuple):
    """Where the elements of an array lie on a device.

    Attributes:
        values: a tensor of one axis with these elements and others; nobody writes into it.
        device: the device, such as `cuda:0`.
        first: index of the first of these elements.
    """

    values: Any
    device: str
    first: int


class InputsOnDevice(dict[str, Array]):
    """Inputs of a request, some of which lie on a device as well.

    Attributes:
        twins: where they lie, by the name of the input.
    """

    twins: dict[str, RowsOnDevice]

    def rows(self, start: int, stop: int) -> InputsOnDevice:
        """Return the rows from `start` up to, not including, `stop`. Any thread."""
        found = InputsOnDevice({name: array[start:stop] for name, array in self.items()})
        found.twins = {
            name: twin._replace(first=twin.first + start * (self[name].size // len(self[name])))
            for name, twin in self.twins.items()
        }
        return found


_TWINS: Final[dict[int, tuple[ref[Array], Any, str]]] = {}
"""Twins by the `id` of the array that owns the memory. Each step on the dictionary is one of the
interpreter's, so it needs no lock.
"""


def note_twin(array: Array, values: Any, device: str, gone: Callable[[int], object]) -> bool:
    """Note that the elements of `array` lie in `values` too, row-major, on `device`.

    Nobody may write into either from now on. `gone` hears the `id` of `array` on whatever thread
    lets go of it. Return False if `array` does not own its memory: then nothing is noted.

    Any thread.
    """
    if _owner(array) is not array or not array.flags.c_contiguous:
        return False
    key = id(array)

    def forget(_: object) -> None:
        _TWINS.pop(key, None)
        gone(key)

    # An array forgets its twin before its memory is free, so no other one has its `id` by then.
    _TWINS[key] = ref(array, forget), values, device
    return True


def rows_on_device(array: Array) -> RowsOnDevice | None:
    """Return where the elements of `array` lie on a device; None without a twin. Any thread."""
    owner = _owner(array)
    found = _TWINS.get(id(owner))
    if found is None or found[0]() is not owner:
        return None
    if not array.flags.c_contiguous or array.dtype != owner.dtype or not array.size:
        return None
    first = (_address(array) - _address(owner)) // array.itemsize
    return RowsOnDevice(found[1], found[2], first)


def _owner(array: Array) -> Array:
    """Return the array whose memory `array` is a view of; itself if it is none."""
    base = array.base
    return base if isinstance(base, np.ndarray) else array


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])

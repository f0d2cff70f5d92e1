"""Arrays in messages: small ones as bytes, large ones as places in shared memory.

| array | in the message |
|---|---|
| of numbers, up to `INLINE_BYTES` | dtype, shape, bytes |
| of numbers, larger | dtype, shape, offset in the region; the bytes where the region is full |
| BYTES, that is of objects | "O", shape, list of elements |
| ragged rows | "R", the rows, each as one of those above |

A small array in shared memory would cost more than it saves: a copy of 4 KiB takes less time than
to note that the array is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from batcher.core.ragged import is_ragged, ragged
from batcher.core.spec import Array
from batcher.workers.shared_memory.region import Lender, Reader

INLINE_BYTES: Final = 1 << 14
"""Bytes of an array up to which the array is part of the message."""

Written = tuple[Any, ...]
_OBJECTS: Final = "O"
_RAGGED: Final = "R"


def write_arrays(arrays: Mapping[str, Array], lender: Lender) -> dict[str, Written]:
    """Return `arrays` as values of a message; large ones are copied into memory of `lender`.

    Raises:
        TypeError: an array of objects holds something other than bytes.
    """
    return {name: write_array(array, lender) for name, array in arrays.items()}


def write_array(array: Array, lender: Lender) -> Written:
    """Return one array as a value of a message; raises as `write_arrays`."""
    dtype = array.dtype
    if dtype.hasobject:
        return _write_objects(array, lender)
    if array.nbytes > INLINE_BYTES:
        offset = lender.write(array)
        if offset >= 0:
            return dtype.str, array.shape, offset
    return dtype.str, array.shape, array.tobytes()


def _write_objects(array: Array, lender: Lender) -> Written:
    if is_ragged(array):
        return _RAGGED, [write_array(row, lender) for row in array]
    elements = array.ravel().tolist()
    for element in elements:
        if not isinstance(element, bytes):
            raise TypeError(f"expected objects that are bytes; got {type(element).__name__}")
    # `marshal` takes no values of derived classes, such as numpy's own bytes.
    return _OBJECTS, array.shape, [bytes(element) for element in elements]


def read_arrays(written: Mapping[str, Written], reader: Reader) -> dict[str, Array]:
    """Return the arrays of a message; large ones are views of memory of `reader`. Read only."""
    return {name: read_array(value, reader) for name, value in written.items()}


def read_array(written: Written, reader: Reader) -> Array:
    """Return one array of a message."""
    kind = written[0]
    if kind == _RAGGED:
        return ragged([read_array(row, reader) for row in written[1]])
    shape = written[1]
    content = written[2]
    if kind == _OBJECTS:
        array = np.empty(len(content), object)
        array[:] = content
        return array.reshape(shape)
    if type(content) is int:
        return reader.view(content, shape, np.dtype(kind))
    return np.ndarray(shape, kind, content)

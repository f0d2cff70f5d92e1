"""Rows of unequal shapes as one value: ragged rows.

The rows of an ordinary array have one shape. Where rows differ, as boxes that were found in
pictures do, the rows are *ragged*: an array of one axis, of dtype object, whose elements are the
rows, each an ordinary array.

    boxes of three pictures       FP32[2,4], FP32[0,4], FP32[5,4]
    an ordinary array             cannot hold these rows
    ragged rows                   object[3], whose elements are those three arrays

BYTES are arrays of dtype object as well, and their elements are `bytes`. So the first element tells
the two apart (`is_ragged`).

From the model to the answer ragged rows go the way of any other output. A request gets its own rows
alone. If the rows of one request have one shape, the request gets an ordinary array: that is so for
each request of one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from batcher.core.spec import Array, shape_text


def ragged(rows: Sequence[Array]) -> Array:
    """Return `rows` as ragged rows, whatever their shapes."""
    # One by one: NumPy would try to make one array of rows that have one shape.
    array = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        array[index] = row
    return array


def is_ragged(array: Array) -> bool:
    """Return whether `array` holds ragged rows."""
    return (
        array.dtype.hasobject
        and array.ndim == 1
        and len(array) > 0
        and isinstance(array[0], np.ndarray)
    )


def joined_rows(arrays: Iterable[Iterable[Array]]) -> Array:
    """Return the rows of all `arrays`, ragged or not, as one ordinary array where that is possible.

    All rows have one dtype and one number of axes.
    """
    rows = [row for array in arrays for row in array]
    if len({np.shape(row) for row in rows}) == 1:
        return np.stack(rows)
    return ragged([np.asarray(row) for row in rows])


def concatenated(arrays: Sequence[Array]) -> Array:
    """Return `arrays`, ragged or not, one behind the other."""
    is_even = len({array.shape[1:] for array in arrays}) == 1
    if is_even and not any(map(is_ragged, arrays)):
        return np.concatenate(arrays)
    return joined_rows(arrays)


def own_rows(array: Array, start: int, stop: int) -> Array:
    """Return the rows from `start` up to, not including, `stop` of an array, ragged or not."""
    rows: Array = array[start:stop]
    return joined_rows([rows]) if is_ragged(rows) else rows


def copied(array: Array) -> Array:
    """Return a copy of an array, and of each of its rows if the rows are ragged."""
    return ragged([row.copy() for row in array]) if is_ragged(array) else array.copy()


def row_shapes(array: Array) -> str:
    """Return the shapes of ragged rows as text, such as `[2,4], [0,4]`, each shape once."""
    return ", ".join(sorted({shape_text(row.shape) for row in array}))

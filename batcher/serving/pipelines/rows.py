"""Rows of arrays chosen and put back: what a condition does to the values of one request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batcher.core.ragged import is_ragged, joined_rows, ragged
from batcher.core.spec import Array, TensorSpec
from batcher.errors import ModelContractError


def chosen_rows(arrays: Mapping[str, Array], places: Array) -> dict[str, Array]:
    """Return the rows of `arrays` at `places`. Any thread."""
    return {name: even_rows(array[places]) for name, array in arrays.items()}


def even_rows(array: Array) -> Array:
    """Return ragged rows of one shape as an ordinary array, others as they are. Any thread."""
    return joined_rows([array]) if is_ragged(array) else array


def no_rows(tensor: TensorSpec) -> Array:
    """Return no row of `tensor`; free axes are of size 0. Any thread."""
    return np.empty((0, *[max(size, 0) for size in tensor.shape]), tensor.datatype.numpy)


def merged(tensor: TensorSpec, chosen: Array, places: Array, other: Array, rows: int) -> Array:
    """Return `rows` rows: those of `chosen` at `places`, and elsewhere those of `other`.

    `other` has all rows, or is one row that stands for each of them.

    Raises ModelContractError: the rows have unequal shapes, and `tensor` is not ragged. Any thread.
    """
    is_row = not is_ragged(other) and other.ndim == len(tensor.shape)
    if not len(places):
        return np.repeat(other[None], rows, 0) if is_row else other
    if len(places) == rows:
        return chosen
    shape = other.shape if is_row else other.shape[1:]
    if not is_ragged(chosen) and not is_ragged(other) and chosen.shape[1:] == shape:
        result = np.repeat(other[None], rows, 0) if is_row else other.copy()
        result[places] = chosen
        return result
    if not tensor.is_ragged:
        raise ModelContractError(
            f"output {tensor.name!r}: expected rows of one shape from the step and from its `else`"
        )
    every = ragged([other] * rows if is_row else list(other))
    for place, row in zip(places.tolist(), chosen, strict=True):
        every[place] = row
    return even_rows(every)

"""How alike the answers of two versions to one request are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from batcher.core.ragged import copied as copied_rows
from batcher.core.ragged import is_ragged
from batcher.core.spec import Array


class Comparison(NamedTuple):
    """How many rows of two answers are alike.

    Attributes:
        rows: rows that were compared.
        equal: rows that are equal, within the tolerance where they are floats.
        labelled: rows that name a class: the largest of several floats, or a whole number or text.
        agreeing: rows of those that name the same class.
    """

    rows: int
    equal: int
    labelled: int
    agreeing: int


def copied(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return `outputs` without the rows of others that they may be views of. Any thread."""
    return {name: copied_rows(value) for name, value in outputs.items()}


def compared(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], tolerance: float
) -> Comparison:
    """Compare two answers row by row. Any thread.

    Args:
        ours: outputs by name, each an array whose first axis is the row.
        theirs: likewise, of as many rows.
        tolerance: most that two floats may differ, as a share of theirs plus as a difference.
    """
    rows = len(next(iter(ours.values())))
    equal, agreeing, labelled = np.ones(rows, bool), np.ones(rows, bool), False
    for name, mine in ours.items():
        other = theirs[name]
        if mine.shape != other.shape or is_ragged(mine) or is_ragged(other):
            equal &= _equal_ragged(mine, other, tolerance)
            continue
        equal &= _equal(mine, other, tolerance).reshape(rows, -1).all(axis=1)
        label = _labels(mine)
        if label is not None:
            labelled = True
            agreeing &= label == _labels(other)
    agreed = int(agreeing.sum()) if labelled else 0
    return Comparison(rows, int(equal.sum()), rows if labelled else 0, agreed)


def _equal(one: Array, other: Array, tolerance: float) -> Array:
    """Return of each element whether it is equal in both."""
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return np.asarray(one == other)
    return np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def _equal_ragged(mine: Array, theirs: Array, tolerance: float) -> Array:
    """Return of each row whether it is equal in both; rows may differ in shape."""
    pairs = [(np.asarray(one), np.asarray(other)) for one, other in zip(mine, theirs, strict=True)]
    return np.array(
        [
            one.shape == other.shape and bool(_equal(one, other, tolerance).all())
            for one, other in pairs
        ]
    )


def _labels(output: Array) -> Array | None:
    """Return the class that each row names; None if rows name none."""
    if output.dtype.kind == "f":
        is_scores = output.ndim == 2 and output.shape[1] > 1
        return np.asarray(output.argmax(axis=1)) if is_scores else None
    return output.reshape(len(output)) if output.size == len(output) else None

"""Which axis of a tensor in an ONNX graph counts the rows of a batch.

A graph does not say. The shape of one row, in `model.yaml`, leaves few axes: without the axis of
the batch, the graph's shape must be that of a row. Of those that are left the best one is taken:

    1. an axis whose size has a name that means a batch, or the name that a batch has elsewhere
    2. an axis whose size is not fixed, and whose name does not mean something else
    3. the first axis

Beside an axis of any size one of a fixed size is not taken, unless it is the first. Where a name
means a batch no other axis is.

Example: for rows of shape [2,128] an input of shape [2,'n',128] has its rows on axis 1. Axis 0
would do as well, if 'n' were always 2, but the size of axis 0 is fixed.
"""

from __future__ import annotations

import re

from batcher.config.onnx_file import Dim

_BATCH = re.compile(r"(?i)batch|^(n|b|bs|rows?|samples?|num_samples)$")
_OTHER = re.compile(r"(?i)seq|len|time|frame|token|phoneme|height|width|chan|feat|^(t|s|h|w|c)$")


def means_batch(dim: Dim, names: frozenset[str] = frozenset()) -> bool:
    """Return whether the size `dim` has a name that means a batch, or one of `names`."""
    return isinstance(dim, str) and (dim in names or _BATCH.search(dim) is not None)


def first_choice(shape: tuple[Dim, ...], names: frozenset[str] = frozenset()) -> int:
    """Return the axis of the batch where the shape of a row is not known."""
    return next((axis for axis, dim in enumerate(shape) if means_batch(dim, names)), 0)


def axes_of_rows(
    shape: tuple[Dim, ...],
    row: tuple[int, ...],
    names: frozenset[str] = frozenset(),
    is_output: bool = False,
) -> list[int]:
    """Return the axes of `shape` that may count rows of the shape `row`, the best one first.

    `names` are names that the size of a batch has elsewhere in the graph.
    """
    if len(shape) != len(row) + 1:
        return []
    fitting = [
        axis
        for axis in range(len(shape))
        if _may_count(shape, axis, names)
        and fits((*shape[:axis], *shape[axis + 1 :]), row, is_output)
    ]
    return sorted(fitting, key=lambda axis: -_rank(shape[axis], names))


def fits(shape: tuple[Dim, ...], row: tuple[int, ...], is_output: bool = False) -> bool:
    """Return whether rows of the shape `row` may have `shape` in the graph.

    A free axis of a row fits a fixed one of an output: the graph always gives the same size.
    """
    return len(shape) == len(row) and all(
        not isinstance(dim, int) or dim == size or (is_output and size < 0)
        for dim, size in zip(shape, row, strict=True)
    )


def _may_count(shape: tuple[Dim, ...], axis: int, names: frozenset[str]) -> bool:
    """Return whether `axis` may count rows, whatever the shape of a row.

    Otherwise a wrong shape of a row might fit by chance: [3] fits ['batch',2] without its axis 1.
    """
    if any(means_batch(dim, names) for dim in shape):
        return means_batch(shape[axis], names)
    is_fixed = all(isinstance(dim, int) for dim in shape)
    return axis == 0 or is_fixed or not isinstance(shape[axis], int)


def _rank(dim: Dim, names: frozenset[str]) -> int:
    if means_batch(dim, names):
        return 2
    is_other = isinstance(dim, str) and _OTHER.search(dim) is not None
    return 0 if isinstance(dim, int) or is_other else 1

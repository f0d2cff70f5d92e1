"""Outputs in which the rows of a batch meet, told by the batches of warm-up.

A model that holds each row against each other gives rows with an axis as long as the batch. So the
answer of one request would hold numbers of others. Blank rows are all alike: of a model that looks
at each row alone, a row of an output has the same shape in every batch.

    rows of the batch         1        2        4
    shape of the output       [1,1]    [2,2]    [4,4]
"""

from __future__ import annotations

from batcher.core.ragged import is_ragged
from batcher.models.protocol import Arrays


class BatchAxes:
    """The axes of outputs that have been as long as every batch so far. Inference thread."""

    def __init__(self) -> None:
        """Know no batch yet. Inference thread."""
        self._batches: set[int] = set()
        self._axes: set[tuple[str, int]] = set()

    def see(self, outputs: Arrays) -> None:
        """Take note of the shapes of the `outputs` of a batch. Inference thread."""
        found = {
            (name, axis)
            for name, array in outputs.items()
            if not is_ragged(array)
            for axis, size in enumerate(array.shape[1:])
            if size == len(array)
        }
        self._axes = self._axes & found if self._batches else found
        self._batches |= {len(array) for array in outputs.values()}

    @property
    def output(self) -> str:
        """An output with such an axis; empty if there is none, or one size of batches alone."""
        return min(self._axes)[0] if self._axes and len(self._batches) > 1 else ""

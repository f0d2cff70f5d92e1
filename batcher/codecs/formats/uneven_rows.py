"""Ragged rows (`core/ragged.py`) in answers: which formats hold them, and what the others say.

    format                                        rows of unequal shapes
    JSON, JSON lines, MessagePack, TensorFlow     a list of rows, each with its own shape
        Serving's JSON
    CSV                                           short lines end with empty cells
    .npy, raw bytes, the Open Inference Protocol  are refused: one shape stands for all rows

The rows of a request of one row have one shape, so every format holds them.
"""

from __future__ import annotations

from batcher.core.ragged import is_ragged, row_shapes
from batcher.core.spec import Array, TensorSpec
from batcher.errors import NotAcceptable


def even_rows(array: Array, tensor: TensorSpec) -> Array:
    """Return `array`, the rows of an output, if all of its rows have one shape.

    Raises:
        NotAcceptable: the rows are ragged.
    """
    if array.dtype.hasobject and is_ragged(array):
        raise NotAcceptable(
            f"output {tensor.name!r}: expected rows of one shape, which this format needs; got "
            f"{row_shapes(array)}: send each row in a request of its own, or take the answer of "
            "/predict as application/json"
        )
    return array

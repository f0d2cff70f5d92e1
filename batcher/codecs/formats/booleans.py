"""Booleans in binary formats: one byte each, 0 or 1.

numpy takes any byte for a boolean without looking, and the results of computing with a byte of 2
are undefined. So bytes of other values are refused (`checked_booleans`), or made 1 where clients
of the Open Inference Protocol send them (`lenient_booleans`).
"""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array
from batcher.errors import DecodingError


def checked_booleans(array: Array, name: str) -> Array:
    """Return `array`, the input or output `name`, after a look at its bytes if it is of booleans.

    Raises:
        DecodingError: a byte is neither 0 nor 1.
    """
    if array.dtype == bool and array.size:
        highest = int(array.view("u1").max())
        if highest > 1:
            raise DecodingError(
                f"input {name!r}: expected booleans as bytes of 0 or 1; got a byte of {highest}"
            )
    return array


def lenient_booleans(array: Array) -> Array:
    """Return `array`, which is of booleans, with every byte but 0 made true."""
    if array.size and int(array.view("u1").max()) > 1:
        truth: Array = np.not_equal(array.view("u1"), 0)
        return truth
    return array

"""Booleans in binary formats: a byte of 0 or 1.

numpy takes any byte for a boolean without looking, and what it then computes with a byte of 2 is
undefined.
"""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array
from batcher.errors import DecodingError


def checked_booleans(array: Array, name: str) -> Array:
    """Return `array` of the input `name`, if its bytes are booleans wherever it is of that dtype.

    Raises:
        DecodingError: one is neither 0 nor 1.
    """
    if array.dtype == bool and array.size:
        highest = int(array.view("u1").max())
        if highest > 1:
            raise DecodingError(
                f"input {name!r}: expected booleans as bytes of 0 or 1; got a byte of {highest}"
            )
    return array


def lenient_booleans(array: Array) -> Array:
    """Return `array`, booleans of which any byte but 0 is true, as they are sent by clients of the Open Inference Protocol."""
    if array.size and int(array.view("u1").max()) > 1:
        truth: Array = np.not_equal(array.view("u1"), 0)
        return truth
    return array

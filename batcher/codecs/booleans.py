"""Booleans in binary formats: a byte of 0 or 1, nothing else.

numpy takes any byte for a boolean without looking, and what it then computes with a byte of 2 is undefined.
"""

from __future__ import annotations

from batcher.errors import DecodingError
from batcher.spec import Array


def checked_booleans(array: Array, name: str) -> Array:
    """Return `array` of the input `name`, if its bytes are booleans wherever it is of that dtype.

    Raises:
        DecodingError: one is neither 0 nor 1.
    """
    if array.dtype == bool and array.size:
        highest = int(array.view("u1").max())
        if highest > 1:
            raise DecodingError(f"input {name!r}: expected booleans as bytes of 0 or 1; got a byte of {highest}")
    return array

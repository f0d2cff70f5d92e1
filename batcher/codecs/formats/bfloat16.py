"""BF16 to float32 and back.

numpy has no BF16, so arrays of BF16 hold the bits as 16-bit integers: the upper half of a float32,
rounded to nearest even.
"""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array


def to_float32(bits: Array) -> Array:
    """Return the float32 values of BF16 `bits`, 16-bit integers of any shape."""
    return (bits.astype("<u4") << 16).view("<f4")


def from_float32(values: Array) -> Array:
    """Return the BF16 bits nearest to float32 `values` of any shape; NaN stays NaN."""
    bits = np.asarray(values, dtype="<f4").copy().view("<u4")
    # just under half of the last place that stays, and one more if that place is odd: ties to even
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # rounding could carry a NaN over into an infinity or beyond
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def plain_numbers(array: Array, datatype: str) -> Array:
    """Return `array` of the named datatype as numbers: BF16 as float32, all others as they are."""
    return to_float32(array) if datatype == "BF16" else array

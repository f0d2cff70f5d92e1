"""BF16 as numbers: the upper half of a 32-bit float, rounded to nearest even."""

from __future__ import annotations

import numpy as np

from batcher.core.spec import Array


def to_float32(bits: Array) -> Array:
    """Return the float32 values of BF16 `bits`, 16-bit integers of any shape."""
    return (bits.astype("<u4") << 16).view("<f4")


def from_float32(values: Array) -> Array:
    """Return the BF16 bits nearest to float32 `values` of any shape; NaN stays NaN."""
    bits = np.asarray(values, dtype="<f4").copy().view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")

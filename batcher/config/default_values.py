"""The value that an optional input has in requests without that input.

`default:` in `model.yaml` is a number, a text, a boolean, or nested lists of the shape of a row. A
single value stands for all elements of a row whose shape is fixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.core.spec import Array, Datatype


def default_row(value: Any, dtype: Datatype, shape: tuple[int, ...]) -> Array:
    """Return `value`, as it stands in `model.yaml`, as one row of an input.

    Raises:
        ValueError: the value is not of the datatype, or not of the shape; the message says what is
            expected.
    """
    try:
        row = _elements(value, dtype)
    except (TypeError, ValueError, OverflowError) as err:
        raise ValueError(f"a default of {dtype.name}") from err
    if not row.ndim and min(shape, default=0) >= 0:
        return np.full(shape, row[()], row.dtype)
    if len(row.shape) != len(shape) or any(
        want not in (-1, have) for want, have in zip(shape, row.shape, strict=True)
    ):
        raise ValueError(f"a default of shape {list(shape)}")
    return row


def _elements(value: Any, dtype: Datatype) -> Array:
    """Return `value` as an array of `dtype`. Raises ValueError, TypeError or OverflowError."""
    plain = np.array(value)
    if dtype.name == "BYTES":
        texts = np.array(value, object)
        if plain.dtype.kind != "U":
            raise TypeError(value)
        return np.array([text.encode() for text in texts.flat], object).reshape(texts.shape)
    if dtype.name == "BF16":
        # The upper half of a 32-bit float is the same number, less exact.
        return np.asarray((np.array(value, "<f4").view("<u4") >> 16).astype("<u2"))
    is_boolean = dtype.name == "BOOL"
    row = np.array(value, dtype.numpy)
    # Of 1.5 an input of whole numbers would get 1, and any number is true.
    if (plain.dtype.kind == "b") != is_boolean or (
        dtype.numpy.kind in "iu" and not np.array_equal(row, plain)
    ):
        raise TypeError(value)
    return row

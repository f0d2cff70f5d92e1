"""Rows that fail by themselves in a batch that does not.

A row fails by itself in two ways, and only its own request fails with it:

- the model returns an output as a list of rows, with an exception in the place of a row;
- a row's output holds NaN or infinity, and the model is set to `finite_outputs`.

A batch stays one array for each output. So a failed row keeps its place in the array, filled with a
copy of a sound row, and its error stands beside the array, under the row's index.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batcher.core.ragged import is_ragged
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError

RowErrors = dict[int, BaseException]
"""The error of each row that failed, by the row's index in its batch."""

_BF16_EXPONENT = 0x7F80
"""The exponent bits of a BF16 number; all of them are set in NaN and infinity alone."""


def non_finite_rows(outputs: Mapping[str, Array], spec: ModelSpec) -> RowErrors:
    """Return an error for each row with NaN or infinity in one of its `outputs`.

    Any thread.
    """
    # NumPy has no BF16: such an output comes as 16-bit integers.
    bf16 = {tensor.name for tensor in spec.outputs if tensor.datatype.name == "BF16"}
    errors: RowErrors = {}
    for name, array in outputs.items():
        if wrong := _not_finite(array, name in bf16):
            text = (
                f"model {spec.name!r}: expected finite numbers in output {name!r}; got NaN or "
                "infinity"
            )
            errors = {row: ModelContractError(text) for row in wrong} | errors
    return errors


def blank_row(tensor: TensorSpec | None) -> Array:
    """Return a row of zeros or empty texts, for a batch in which every row failed. Any thread."""
    if tensor is None:
        return np.zeros(())
    dtype = tensor.datatype.numpy
    return np.full([max(size, 0) for size in tensor.shape], b"" if dtype.hasobject else 0, dtype)


def _not_finite(array: Array, is_bf16: bool) -> list[int]:
    """Return the rows with elements that are no finite numbers. Any thread."""
    if is_ragged(array):
        return [row for row, own in enumerate(array) if _not_finite(own[np.newaxis], is_bf16)]
    finite = _finite(array, is_bf16)
    if finite is None or finite.all():
        return []
    wrong: list[int] = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1)).tolist()
    return wrong


def _finite(array: Array, is_bf16: bool) -> Array | None:
    """Return which elements are finite numbers; None where every element is. Any thread."""
    if is_bf16:
        return np.asarray((array & _BF16_EXPONENT) != _BF16_EXPONENT)
    return np.asarray(np.isfinite(array)) if array.dtype.kind == "f" else None

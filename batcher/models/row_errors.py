"""Rows that fail by themselves in a batch that does not.

A row fails by itself in two ways, and only its own request fails with it:

- the model returns an output as a list of rows, with an exception in the place of a row;
- a row's output holds NaN or infinity, and the model is set to `finite_outputs`.

A batch stays one array for each output. So a failed row keeps its place in the array, filled with a
copy of a sound row, and its error stands beside the array, under the row's index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError

RowErrors = dict[int, BaseException]
"""The error of each row that failed, by the row's index in its batch."""

_BF16_EXPONENT = 0x7F80
"""The exponent bits of a BF16 number; all of them are set in NaN and infinity alone."""


def take_errors(outputs: dict[str, Any], spec: ModelSpec) -> RowErrors:
    """Take the exceptions that stand in rows' places out of `outputs`, and return them.

    Args:
        outputs: what a model returned; only values that are lists are looked at. In each such list
            a sound row takes the place of every exception.
        spec: the model's specification. Outputs that `spec` does not name are those of a model with
            `postprocess`.

    Returns:
        One error for each failed row. A row that failed in one output has failed in all of them.

    Inference thread.
    """
    tensors = {tensor.name: tensor for tensor in spec.outputs}
    errors: RowErrors = {}
    for name, value in list(outputs.items()):
        if isinstance(value, list):
            outputs[name], listed = _without_errors(value, tensors.get(name))
            errors = listed | errors
    return errors


def non_finite_rows(outputs: Mapping[str, Array], spec: ModelSpec) -> RowErrors:
    """Return an error for each row with NaN or infinity in one of its `outputs`.

    Any thread.
    """
    # NumPy has no BF16: such an output comes as 16-bit integers.
    bf16 = {tensor.name for tensor in spec.outputs if tensor.datatype.name == "BF16"}
    errors: RowErrors = {}
    for name, array in outputs.items():
        finite = _finite(array, name in bf16)
        if finite is not None and not finite.all():
            wrong = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1)).tolist()
            text = (
                f"model {spec.name!r}: expected finite numbers in output {name!r}; got NaN or "
                "infinity"
            )
            errors = {row: ModelContractError(text) for row in wrong} | errors
    return errors


def _without_errors(rows: list[Any], tensor: TensorSpec | None) -> tuple[list[Any], RowErrors]:
    """Return `rows` with a sound row in place of each exception, and the exceptions. Any thread."""
    errors = {row: item for row, item in enumerate(rows) if isinstance(item, BaseException)}
    if not errors:
        return rows, errors
    sound = (item for row, item in enumerate(rows) if row not in errors)
    filler = next(sound, _blank_row(tensor))
    return [filler if row in errors else item for row, item in enumerate(rows)], errors


def _blank_row(tensor: TensorSpec | None) -> Any:
    """Return a row of zeros or empty texts, for a batch in which every row failed. Any thread."""
    if tensor is None:
        return 0.0
    dtype = tensor.datatype.numpy
    row = np.full([max(size, 0) for size in tensor.shape], b"" if dtype.hasobject else 0, dtype)
    # Where a row is a single element, [()] returns the element itself instead of an array.
    return row[()]


def _finite(array: Array, is_bf16: bool) -> Array | None:
    """Return which elements are finite numbers; None where every element is. Any thread."""
    if is_bf16:
        return np.asarray((array & _BF16_EXPONENT) != _BF16_EXPONENT)
    return np.asarray(np.isfinite(array)) if array.dtype.kind == "f" else None

"""Rows that fail by themselves in a batch that does not.

Errors in rows' places, and numbers that are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError

RowErrors = dict[int, BaseException]
"""By the index of a row in its batch, why it failed."""

_BF16_EXPONENT = 0x7F80


def take_errors(outputs: dict[str, Any], spec: ModelSpec) -> RowErrors:
    """Take the exceptions that stand in rows' places out of `outputs`, lists a model returned.

    Any row takes their places.

    Every output of a row that failed in one of them counts as failed. Outputs that `spec` does not
    name are those of a model with `postprocess`. Inference thread.
    """
    tensors = {tensor.name: tensor for tensor in spec.outputs}
    errors: RowErrors = {}
    for name, value in list(outputs.items()):
        if isinstance(value, list):
            found = {row: item for row, item in enumerate(value) if isinstance(item, BaseException)}
            if found:
                sound = (item for row, item in enumerate(value) if row not in found)
                filler = next(sound, _blank_row(tensors.get(name)))
                outputs[name] = [filler if row in found else item for row, item in enumerate(value)]
                errors = found | errors
    return errors


def _blank_row(tensor: TensorSpec | None) -> Any:
    if tensor is None:
        return 0.0
    dtype = tensor.datatype.numpy
    row = np.full([max(size, 0) for size in tensor.shape], b"" if dtype.hasobject else 0, dtype)
    return row[()]  # the element itself if a row is one


def non_finite_rows(outputs: Mapping[str, Array], spec: ModelSpec) -> RowErrors:
    """Return an error for each row with NaN or infinity in one of its `outputs`.

    Inference thread.
    """
    halves = {tensor.name for tensor in spec.outputs if tensor.datatype.name == "BF16"}
    errors: RowErrors = {}
    for name, array in outputs.items():
        finite = _finite(array, name in halves)
        if finite is not None and not finite.all():
            wrong = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1)).tolist()
            told = (
                f"model {spec.name!r}: expected finite numbers in output {name!r}; got NaN or "
                "infinity"
            )
            errors = {row: ModelContractError(told) for row in wrong} | errors
    return errors


def _finite(array: Array, is_bf16: bool) -> Array | None:
    if is_bf16:
        return np.asarray((array & _BF16_EXPONENT) != _BF16_EXPONENT)
    return np.asarray(np.isfinite(array)) if array.dtype.kind == "f" else None

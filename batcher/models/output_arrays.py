"""Outputs, which a model returned by name, become arrays in host memory.

    the value                                   becomes
    an array, a tensor                          an array, contiguous
    a list or tuple of rows, a nested tensor    what `row_lists.py` makes of rows
    anything else                               what NumPy makes of it; the check of rows refuses it

PyTorch is not imported here: where it is not loaded, no value is a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import ModelContractError
from batcher.models.protocol import PartialOutputs
from batcher.models.row_errors import RowErrors
from batcher.models.row_lists import array_of_rows


def output_arrays(
    values: Mapping[str, Any], spec: ModelSpec, left_out: tuple[str, ...], is_raw: bool = False
) -> dict[str, Array]:
    """Return `values` as arrays; as PartialOutputs, if rows failed or names are `left_out`.

    With `is_raw` the outputs are those for `postprocess`, of which `spec` says nothing.

    Raises:
        ModelContractError: an output is a tensor that holds no plain numbers.

    Any thread.
    """
    if not left_out and all(map(_is_plain, values.values())):
        return dict(values)
    tensors = {tensor.name: tensor for tensor in spec.outputs}
    arrays: dict[str, Array] = {}
    failed: RowErrors = {}
    for name, value in values.items():
        tensor, place = tensors.get(name), f"model {spec.name!r}: output {name!r}"
        value = on_host(value, tensor, place)
        if isinstance(value, list | tuple):
            value, errors = array_of_rows(value, None if is_raw else tensor, place)
            failed = errors | failed
        arrays[name] = plain_array(value, place)
    return PartialOutputs(arrays, failed, left_out) if failed or left_out else arrays


def on_host(value: Any, tensor: TensorSpec | None, place: str) -> Any:
    """Return a tensor as an array in host memory, also where a list holds it; others as they are.

    Args:
        value: what a model or a hook returned.
        tensor: the output that the value is of; None if it is of none.
        place: names the model and the output, for error texts.

    Raises:
        ModelContractError: a tensor holds no plain numbers.

    Any thread.
    """
    if type(value) is np.ndarray or "torch" not in sys.modules:
        return value
    return import_module("batcher.models.pytorch.tensors").on_host(value, tensor, place)


def plain_array(value: Any, place: str) -> Array:
    """Return `value` as a contiguous array.

    Raises:
        ModelContractError: it is an array with a mask, which would be lost without a word.

    Any thread.
    """
    if _is_plain(value):
        plain: Array = value
        return plain
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ModelContractError(f"{place}: expected an array; got a masked one: use `.filled()`")
    # `ascontiguousarray` gives a scalar an axis, and the check of rows would take it for a row.
    # So it does with an object that it cannot read, though the object says that it has axes.
    array = np.asarray(value)
    return np.ascontiguousarray(array) if array.ndim else array


def _is_plain(value: Any) -> bool:
    """Return whether `value` is a contiguous array already. Any thread."""
    return type(value) is np.ndarray and value.flags.c_contiguous

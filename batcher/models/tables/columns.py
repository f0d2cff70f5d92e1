"""The inputs of a request become the table that a model of tables takes.

    inputs of model.yaml                          the model gets
    one with an axis, `x: FP32[4]`                that array; with the names of the model's columns
                                                  where the model has learnt from a table with names
    one of single texts, for a model without      the list of texts
    columns, `text: BYTES[]`
    several of single values, `age: FP32[]`       a table of pandas with a column for each input
    several, for a model without names of         one array: of numbers as they are, of objects
    columns                                       where one of the columns holds text

Text is decoded from UTF-8. An empty text of an input with `missing: nan` is NaN, as pandas reads an
empty cell. The order of the inputs does not matter where the model knows the names of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from batcher.core.error_text import brief_names
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput, ModelLoadError
from batcher.models.protocol import Arrays

Table = Callable[[Arrays], Any]
"""Makes the argument X of a model's methods from the inputs of a batch."""


def table_for(spec: ModelSpec, names: Sequence[str], is_lone: bool) -> Table:
    """Return what makes the table of a model that takes the columns `names`.

    Args:
        spec: of the model.
        names: names of the columns; empty if the model does not know them.
        is_lone: whether the model takes a list of texts, not a table.

    Raises:
        ModelLoadError: the inputs are not those columns; the message names both.

    Inference thread.
    """
    first = spec.inputs[0]
    if len(spec.inputs) == 1 and (first.shape or is_lone):
        return _of_one(first, names, is_lone)
    _check_columns(spec, names)
    return _of_columns(spec.inputs, names)


def _check_columns(spec: ModelSpec, names: Sequence[str]) -> None:
    """Check that the inputs are single values, and the columns `names`. Raises ModelLoadError."""
    wrong = [tensor.name for tensor in spec.inputs if tensor.shape not in ((), (1,))]
    if wrong:
        raise ModelLoadError(
            "inputs: expected one input with all columns, or an input of shape [] for each column; "
            f"got several, of which {brief_names(wrong)} has another shape"
        )
    known = [tensor.name for tensor in spec.inputs]
    if names and set(names) != set(known):
        raise ModelLoadError(
            f"inputs: expected the columns that the model has learnt from, {brief_names(names)}; "
            f"got {brief_names(known)}"
        )


def _of_one(tensor: TensorSpec, names: Sequence[str], is_lone: bool) -> Table:
    if is_lone and tensor.shape == (1,):
        return lambda inputs: _column(inputs, tensor)
    if tensor.datatype.name == "BYTES":
        return lambda inputs: _texts(inputs[tensor.name], tensor)
    if not names or tensor.shape != (len(names),):
        return lambda inputs: inputs[tensor.name]
    frame = import_module("pandas").DataFrame
    return lambda inputs: frame(inputs[tensor.name], columns=list(names))


def _of_columns(tensors: Sequence[TensorSpec], names: Sequence[str]) -> Table:
    by_name = {tensor.name: tensor for tensor in tensors}
    ordered = [by_name[name] for name in names] if names else list(tensors)
    if not names:
        return lambda inputs: _stacked([_column(inputs, tensor) for tensor in ordered])
    frame = import_module("pandas").DataFrame
    return lambda inputs: frame({tensor.name: _column(inputs, tensor) for tensor in ordered})


def _stacked(columns: list[Array]) -> Array:
    """Return `columns` beside each other, as objects if one of them holds text."""
    has_text = any(column.dtype.hasobject for column in columns)
    return np.stack([column.astype(object) for column in columns] if has_text else columns, axis=1)


def _column(inputs: Arrays, tensor: TensorSpec) -> Array:
    """Return the values of an input of single values. Raises InvalidInput."""
    values = inputs[tensor.name].reshape(-1)
    return _texts(values, tensor) if tensor.datatype.name == "BYTES" else values


def _texts(values: Array, tensor: TensorSpec) -> Array:
    """Return the texts of UTF-8 in `values`; an empty one is NaN where texts may be missing.

    Raises:
        InvalidInput: the bytes are not UTF-8.
    """
    missing: Any = float("nan") if tensor.missing_is_nan else ""
    flat = np.empty(values.size, object)
    try:
        flat[:] = [value.decode() or missing for value in values.flat]
    except UnicodeDecodeError as err:
        raise InvalidInput(f"input {tensor.name!r}: expected text in UTF-8; got {err}") from err
    return flat.reshape(values.shape)

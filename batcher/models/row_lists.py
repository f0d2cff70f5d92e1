"""An output that a model returned as a list of rows becomes one value.

    the rows                                        become
    numbers or arrays of one shape                  an array
    arrays whose free axes (-1) differ in size      ragged rows (see `core/ragged.py`)
    texts, or lists of texts                        an array of BYTES
    one of them is an exception                     the row fails with that exception
    one of them is no row of the output             the row fails with an error that says so

A row that fails keeps its place, and a sound row fills it. So no row is searched for by running the
batch again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from batcher.core.error_text import message
from batcher.core.ragged import joined_rows, ragged
from batcher.core.spec import Array, TensorSpec, describe_array, shape_text
from batcher.errors import ModelContractError
from batcher.models.casting import CannotCast, cast, numbers_of, texts
from batcher.models.row_errors import RowErrors, blank_row

_NUMBERS = "biufc"
"""Kinds of NumPy's dtypes that are numbers."""


def array_of_rows(
    rows: Sequence[Any], tensor: TensorSpec | None, place: str
) -> tuple[Array, RowErrors]:
    """Return `rows`, values in host memory, as one value, and the errors of rows that failed.

    `tensor` is the output that the rows are of, None for an output for `postprocess`; `place` names
    the model and the output for error texts. Any thread.
    """
    errors: RowErrors = {
        index: row for index, row in enumerate(rows) if isinstance(row, BaseException)
    }
    array = None if errors else _at_once(rows, tensor)
    if array is not None:
        return array, errors
    made: list[Array | None] = []
    for index, row in enumerate(rows):
        try:
            made.append(None if index in errors else _row(row, tensor))
        except Exception as err:  # also what an array of another library raises when it is read
            errors[index] = ModelContractError(f"{place}, row {index}: {message(err)}")
            made.append(None)
    return _filled(made, tensor), errors


def _filled(rows: Sequence[Array | None], tensor: TensorSpec | None) -> Array:
    """Return rows as one value. A sound row, or a blank one, stands for None. Any thread."""
    filler = next((row for row in rows if row is not None), blank_row(tensor))
    whole = [filler if row is None else row for row in rows]
    # Only rows for `postprocess`, of which nothing is promised, may differ in more than sizes.
    if len({(row.dtype, row.ndim) for row in whole}) > 1:
        return ragged(whole)
    return joined_rows([whole])


def _at_once(rows: Sequence[Any], tensor: TensorSpec | None) -> Array | None:
    """Return rows of one shape as an array, at the speed of NumPy; None if they have none.

    Any thread.
    """
    if tensor is None:
        is_text = bool(rows) and all(isinstance(row, str | bytes) for row in rows)
    else:
        is_text = tensor.datatype.name == "BYTES"
    try:
        # NumPy's own texts would lose zero bytes at their ends.
        array = np.array(rows, object) if is_text else numbers_of(rows)
    except Exception:  # rows of unequal shapes, or of something else; each row will say
        return None
    if tensor is not None and array.ndim != len(tensor.shape) + 1:
        return None
    if is_text:
        return texts(array)[0] if tensor is None else array
    return array if array.dtype.kind in _NUMBERS else None


def _row(row: Any, tensor: TensorSpec | None) -> Array:
    """Return one row as an array, of the output's dtype and shape if there is an output.

    Raises:
        ValueError: it is no such row; the message says what was expected and what came.
        Exception: whatever an array of another library raises when it is read.

    Any thread.
    """
    row = _text_of_bytes(row, tensor)
    array = numbers_of(row)
    is_number = array.dtype.kind in _NUMBERS
    if not is_number and not isinstance(row, np.ndarray):
        array = np.array(row, object)
    if tensor is not None:
        return _declared(array, tensor)
    if is_number:
        return array
    try:
        made, wrong = texts(array[np.newaxis])
    except CannotCast as err:
        raise ValueError(f"expected numbers or texts; got {describe_array(array)}") from err
    if wrong:
        raise ValueError(f"expected numbers or texts; got {wrong[0]}")
    return made.reshape(array.shape)


def _text_of_bytes(row: Any, tensor: TensorSpec | None) -> Any:
    """Return a row of other bytes as `bytes`: to NumPy they would be numbers. Any thread."""
    is_text = tensor is None or tensor.datatype.name == "BYTES"
    return bytes(row) if is_text and isinstance(row, bytearray | memoryview) else row


def _declared(array: Array, tensor: TensorSpec) -> Array:
    """Return `array`, one row, as a row of `tensor`; raises ValueError as `_row`. Any thread."""
    # `[]` for no boxes of the shape [-1,4] shows neither the number of its axes nor its dtype.
    if array.shape == (0,) and tensor.free_axes:
        array = np.empty([max(size, 0) for size in tensor.shape], tensor.datatype.numpy)
    expected = f"expected {tensor.datatype.name}{shape_text(tensor.shape)}"
    is_object = array.dtype.hasobject and not array.ndim
    got = type(array.item()).__name__ if is_object else describe_array(array)
    try:
        made, wrong = cast(array[np.newaxis], tensor)
    except CannotCast as err:
        raise ValueError(f"{expected}; got {got}{err.advice}") from err
    if wrong:
        raise ValueError(f"{expected}; got {wrong[0]}")
    if not tensor.admits(made):
        hint = "" if tensor.free_axes else ": an axis that differs between rows is -1 in the shape"
        raise ValueError(f"{expected}; got {got}{hint}")
    return made.reshape(array.shape)

"""The outputs of a batch become what `model.yaml` promises, or fail with words that say why not.

What happens to an output:

an output                                                   what happens
has the declared dtype and shape (nearly always)            nothing
has another dtype that can be cast (see `casting.py`)       is cast
holds rows of unequal shapes (see `core/ragged.py`)         stays ragged, if an axis is free
is missing, has too few rows, cannot be cast                the batch fails
has rows that do not fit                                    those rows fail
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from batcher.core.ragged import is_ragged
from batcher.core.spec import (
    Array,
    ModelSpec,
    TensorSpec,
    has_rows,
    rows_error,
    shape_text,
    wrong_form,
)
from batcher.errors import ModelContractError
from batcher.models.casting import CannotCast, cast, texts
from batcher.models.protocol import Arrays, PartialOutputs
from batcher.models.row_errors import RowErrors
from batcher.models.row_lists import array_of_rows


def fit_outputs(spec: ModelSpec, outputs: Arrays, rows: int) -> tuple[dict[str, Array], RowErrors]:
    """Return the outputs that `spec` promises for `rows` rows, and the errors of rows that failed.

    Raises:
        ModelContractError: an output is missing, has another number of rows, or has a dtype or
            shape that cannot be made the promised one.

    Any thread.
    """
    fitted: dict[str, Array] = {}
    failed: RowErrors = {}
    for tensor in spec.outputs:
        array = outputs.get(tensor.name)
        if array is None:
            raise _missing(spec, tensor, outputs)
        if not has_rows(array, rows):
            raise _other_rows(spec, tensor, array, rows)
        if array.dtype.hasobject or not tensor.admits(array):
            array, errors = _fitted(array, tensor, spec)
            failed = errors | failed if errors else failed
        fitted[tensor.name] = array
    return fitted, failed


def _missing(spec: ModelSpec, tensor: TensorSpec, outputs: Arrays) -> ModelContractError:
    """Return the error for an output that is not among `outputs`. Any thread."""
    left_out = outputs.left_out if isinstance(outputs, PartialOutputs) else ()
    got = ", ".join(map(repr, (*outputs, *left_out))) or "none"
    return ModelContractError(f"model {spec.name!r}: expected output {tensor.name!r}; got {got}")


def _other_rows(spec: ModelSpec, tensor: TensorSpec, array: Array, rows: int) -> ModelContractError:
    """Return the error for an output of `array`, which has other rows than `rows`. Any thread."""
    error = rows_error(spec.name, tensor.name, array, rows)
    if array.dtype.hasobject and not array.ndim:
        return ModelContractError(f"{error}: {_object_advice(array.item(), tensor)}")
    if rows == 1 and array.ndim == len(tensor.shape) + 1:
        several = shape_text((-1, *tensor.shape))
        return ModelContractError(
            f"{error}: each row has one answer. If these are several of one row, write `shape: "
            f"{several}` and return an array for each row; if they are of no row, leave the output "
            "out of `outputs`"
        )
    if rows > 1 or array.ndim != len(tensor.shape):
        return error
    return ModelContractError(
        f"{error}: it has no axis for the rows. `squeeze()` takes it off a batch of one row: "
        "write `squeeze(-1)`. `sum()` and `mean()` take all rows together: name an axis"
    )


def _object_advice(value: Any, tensor: TensorSpec) -> str:
    """Return what to write in place of an object that NumPy cannot read. Any thread."""
    if hasattr(value, "toarray"):
        return "return `.toarray()` of it"
    if isinstance(value, Iterator | Collection):
        return "return a list of rows, or an array"
    return f"return a dict such as {{{tensor.name!r}: …}}, or arrays in the order of model.yaml"


def _fitted(array: Array, tensor: TensorSpec, spec: ModelSpec) -> tuple[Array, RowErrors]:
    """Return `array` as `tensor` promises, and the errors of rows that do not fit. Any thread."""
    place = f"model {spec.name!r}: output {tensor.name!r}"
    # Rows of unequal shapes, or lists, as the elements of an array of objects.
    if array.ndim == 1 and isinstance(array[0], np.ndarray | list | tuple):
        return array_of_rows(list(array), tensor, place)
    try:
        made, wrong = cast(array, tensor)
    except CannotCast as err:
        raise ModelContractError(f"{place}: {_wrong_kind(tensor, array)}{err.advice}") from err
    if not tensor.admits(made):
        raise ModelContractError(f"{place}: {wrong_form(tensor, array)}")
    expected = f"expected {tensor.datatype.name}"
    return made, {
        row: ModelContractError(f"{place}, row {row}: {expected}; got {got}")
        for row, got in wrong.items()
    }


def _wrong_kind(tensor: TensorSpec, array: Array) -> str:
    """Return in words that nothing of the dtype of `array` is what `tensor` says. Any thread."""
    first = array.flat[0]
    if not array.dtype.hasobject or isinstance(first, str | bytes):
        return wrong_form(tensor, array)
    return f"expected {tensor.describe()}; got {type(first).__name__}{shape_text(array.shape)}"


def fit_raw_outputs(model: str, outputs: Arrays, rows: int) -> dict[str, Array]:
    """Return what `predict` of a model with `postprocess` returned for `rows` rows.

    Texts become `bytes`; nothing else is promised of these outputs but their number of rows.

    Raises:
        ModelContractError: there are no outputs, or one of them has another number of rows or holds
            objects that are no texts.

    Any thread.
    """
    if not outputs:
        raise ModelContractError(f"model {model!r}: expected outputs; got none")
    for name, array in outputs.items():
        if not has_rows(array, rows):
            raise ModelContractError(
                f"{rows_error(model, name, array, rows)}: `postprocess` gets the rows of one "
                "request, so leave out what is of no row"
            )
    return {name: _raw(array, model, name) for name, array in outputs.items()}


def _raw(array: Array, model: str, name: str) -> Array:
    """Return an output for `postprocess`, texts as `bytes`; raises as `fit_raw_outputs`."""
    if array.dtype.kind not in "OSUT" or is_ragged(array):
        return array
    made, wrong = texts(array)
    if wrong:
        got = wrong[min(wrong)]
        raise ModelContractError(
            f"model {model!r}: output {name!r}: expected texts or numbers; got {got}"
        )
    return made

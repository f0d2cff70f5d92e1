"""What the hooks of a model must return: one contract for the server and for `batcher check`.

A model may have two hooks, and each is called with one request:

    hook         is called with                must return
    preprocess   the inputs of the request     a mapping of name to array; all arrays have the same
                                               number of rows, at least 1. What `prepared` of
                                               model.yaml pads may be a list of rows of unequal
                                               lengths
    postprocess  the request's rows of the     whatever `predict` may return: the outputs that the
                 outputs                       specification promises, for as many rows as the
                                               request has, or as many as the hook was called with

A `preprocess` may make several rows of one, such as the windows of a recording. Then the batch has
those rows, and `postprocess` may fold them back into one row for each row of the request.

The specification describes what clients send and receive. So of a model with `postprocess` it says
nothing about the outputs of `predict`, and one rule is left for those: rows out equal rows in.

The server raises at the first breach (`run_preprocess`, `run_postprocess`). `batcher check` notes
every breach in words of its own, with the place in the model's code. So `batcher check` takes from
here the rules alone: `as_arrays`, `answer_of` and `common_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np

from batcher.core.ragged import copied, is_ragged, ragged
from batcher.core.spec import Array, ModelSpec, check_objects, has_rows
from batcher.errors import ModelContractError, NoRowsPrepared
from batcher.models.fitting import fit_outputs
from batcher.models.hook_turns import arrays_of
from batcher.models.model_errors import allowed_from_model, model_error
from batcher.models.output_arrays import on_host, output_arrays
from batcher.models.plain_calls import check_returned
from batcher.models.protocol import Arrays, Hook, PartialOutputs
from batcher.models.result_names import keys_without_text, members, named_outputs
from batcher.models.row_errors import non_finite_rows


def as_arrays(result: Any, uneven: Collection[str] = ()) -> dict[str, Array]:
    """Return what `preprocess` returned by name, each value as an array.

    The rows of the arrays named in `uneven` may have unequal lengths: such rows are ragged.

    Raises:
        ModelContractError: the result is no mapping, named tuple or dataclass, or other arrays hold
            rows of unequal lengths.

    Any thread.
    """
    check_returned(result, "preprocess")
    found = members(result)
    if found is None:
        raise ModelContractError(
            f"expected a mapping of name to array; got {type(result).__name__}"
        )
    if wrong := keys_without_text(found):
        raise ModelContractError(f"expected a mapping of name to array; got the keys {wrong}")
    return {name: _as_array(value, name, name in uneven) for name, value in found.items()}


def uneven_names(spec: ModelSpec) -> list[str]:
    """Return the names of what `preprocess` may make of rows of unequal lengths. Any thread."""
    return [tensor.name for tensor in spec.prepared]


def _as_array(value: Any, name: str, may_be_uneven: bool) -> Array:
    """Return what `preprocess` returned as `name` as an array. Raises ModelContractError.

    Any thread.
    """
    try:
        return np.asarray(on_host(value, None, name))
    except ValueError as err:
        if "inhomogeneous" not in str(err):
            raise
        if may_be_uneven:
            return _uneven_rows(value, name)
        raise ModelContractError(
            f"{name!r}: expected rows of one shape; got rows of unequal lengths: pad them, or name "
            f"{name!r} with a `pad`, below `prepared` in model.yaml or in "
            "`@batcher.model(prepared=…)`"
        ) from err


def _uneven_rows(value: Any, name: str) -> Array:
    """Return rows of unequal lengths as ragged rows. Raises ModelContractError. Any thread."""
    rows = [np.asarray(on_host(row, None, name)) for row in value]
    kinds = sorted({f"{row.dtype} with {row.ndim} axes" for row in rows})
    if len(kinds) > 1:
        raise ModelContractError(
            f"{name!r}: expected rows of one dtype and number of axes; got {' and '.join(kinds)}"
        )
    return ragged(rows)


def answer_of(result: Any, spec: ModelSpec, rows: int, batch_rows: int) -> dict[str, Array]:
    """Return the outputs that `spec` promises, from what `postprocess` returned for a request.

    Args:
        result: what the hook returned: whatever `predict` may (`result_names.py`, `fitting.py`).
        spec: the model's specification.
        rows: the rows of the request, before `preprocess`.
        batch_rows: the rows that the hook was called with. More of them than `rows` may stay apart.

    Raises:
        ModelContractError: the result is not what `spec` promises, for either number of rows.
        BaseException: what stands in the place of a row that failed.

    Any thread.
    """
    values, left_out = named_outputs(result, spec)
    made = output_arrays(values, spec, left_out)
    fitted, errors = fit_outputs(spec, made, _answered_rows(made, spec, rows, batch_rows))
    if isinstance(made, PartialOutputs):
        errors |= made.failed
    if errors:
        raise errors[min(errors)]
    return fitted


def _answered_rows(made: Arrays, spec: ModelSpec, rows: int, batch_rows: int) -> int:
    """Return which of both numbers of rows an answer has; raises as `answer_of`. Any thread."""
    name = spec.outputs[0].name
    first = made.get(name)
    if batch_rows <= rows or first is None or has_rows(first, rows):
        return rows
    if has_rows(first, batch_rows):
        return batch_rows
    got = len(first) if first.ndim else "a scalar"
    raise ModelContractError(
        f"model {spec.name!r}: postprocess: expected {rows} rows, as the request has, or "
        f"{batch_rows}, as preprocess has made of them; got {got} in output {name!r}"
    )


def common_rows(arrays: Arrays) -> int:
    """Return the number of rows that all `arrays` have; 0 if that is not one number above 0.

    Any thread.
    """
    counts = _row_counts(arrays)
    return counts.pop() if len(counts) == 1 else 0


def run_preprocess(hook: Hook, inputs: Arrays, spec: ModelSpec) -> tuple[dict[str, Array], int]:
    """Return what `hook` makes of the `inputs` of one request, and its number of rows.

    Args:
        hook: `preprocess` of a model.
        inputs: name to array; the first axis is the row.
        spec: the model's specification.

    Raises:
        ModelContractError: the hook returned no mapping, arrays of different numbers of rows, or
            objects that are no `bytes`.
        BatcherError: the hook raised; `allowed_from_model` says which errors stay as they are.

    Pool thread.
    """
    take = partial(as_arrays, uneven=uneven_names(spec))
    prepared = _run(hook, own_copy(inputs), spec.name, "preprocess", take)
    rows = prepared_rows(prepared, spec.name)
    for name, array in prepared.items():
        if array.dtype.hasobject and not is_ragged(array):
            check_objects(array, f"model {spec.name!r}: {name!r} from preprocess")
    return prepared, rows


def own_copy(inputs: Arrays) -> dict[str, Array]:
    """Return the `inputs` of a request for a hook, which may write into them. Any thread.

    They may be views of the bytes that a client sent, or be shared with another model: with the
    next step of a pipeline, or with a shadow.
    """
    return {name: copied(array) for name, array in inputs.items()}


def prepared_rows(prepared: Arrays, model: str) -> int:
    """Return the number of rows that `preprocess` of the model named `model` has made.

    Raises:
        NoRowsPrepared: `prepared` are arrays without rows.
        ModelContractError: `prepared` are arrays of different numbers of rows, or none.

    Any thread.
    """
    rows = common_rows(prepared)
    if rows == 0:
        raise _uneven_error(model, prepared)
    return rows


def run_postprocess(
    hook: Hook, outputs: Arrays, spec: ModelSpec, rows: int, finite_outputs: bool = False
) -> dict[str, Array]:
    """Return the outputs that `spec` promises, which `hook` makes of one request's outputs.

    Args:
        hook: `postprocess` of a model.
        outputs: what the model returned for the request's rows.
        spec: the model's specification.
        rows: the rows of the request, before `preprocess`.
        finite_outputs: whether NaN and infinity are refused.

    Raises:
        ModelContractError: the hook returned something else than `spec` promises, or a number that
            is not finite although `finite_outputs` is set.
        BatcherError: the hook raised; `allowed_from_model` says which errors stay as they are.

    Pool thread.
    """
    take = partial(answer_of, spec=spec, rows=rows, batch_rows=common_rows(outputs))
    # A mapping of the hook's own, in which it may set a key.
    promised = _run(hook, dict(outputs), spec.name, "postprocess", take)
    if finite_outputs and (errors := non_finite_rows(promised, spec)):
        raise errors[min(errors)]
    return promised


def _run(
    hook: Hook, values: Arrays, model: str, name: str, take: Callable[[Any], dict[str, Array]]
) -> dict[str, Array]:
    """Return the arrays that `take` finds in what `hook` makes of `values`.

    Contract errors name the `model` and the hook by its `name`. Pool thread.
    """

    def named(result: Any) -> dict[str, Array]:
        try:
            return take(result)
        except ModelContractError as err:
            text = str(err).removeprefix(f"model {model!r}: ").removeprefix(f"{name}: ")
            raise ModelContractError(f"model {model!r}: {name}: {text}") from err

    try:
        return arrays_of(hook, values, named)
    # A hook is code of the model's author: whatever it raises ends its own request alone.
    except BaseException as err:
        error = model_error(allowed_from_model(err))
        if error is err:
            raise
        raise error from err


def _uneven_error(model: str, prepared: Arrays) -> ModelContractError:
    """Return the error of a `preprocess` that made no rows, or uneven ones. Any thread."""
    counts = ", ".join(map(str, sorted(_row_counts(prepared))))
    got = f"arrays of {counts} rows" if counts else "none"
    are_empty = bool(prepared) and all(each.ndim and not len(each) for each in prepared.values())
    kind = NoRowsPrepared if are_empty else ModelContractError
    return kind(
        f"model {model!r}: preprocess: expected arrays of the same number of rows, at "
        f"least 1; got {got}"
    )


def _row_counts(arrays: Arrays) -> set[int]:
    """Return the numbers of rows that `arrays` have; a scalar has 0. Any thread."""
    return {len(array) if array.ndim else 0 for array in arrays.values()}

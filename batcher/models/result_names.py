"""What a model returned becomes values by the names of the outputs.

    the model returns                                     the outputs are taken
    a mapping (`dict`, `ModelOutput`, …)                  by name
    a named tuple, a dataclass, a SimpleNamespace, a      by name; a tuple or a table that has none
        table with columns                                of the names: in order
    a mapping within one of these                         by `outer.inner`
    a list of one mapping or named tuple for each row     by name, each output a list of rows
    a list or tuple of one mapping, the values of which   as the mapping alone
        have an axis more than a row
    a list, if the model has one output                   as that output's rows, if each element has
                                                          as many axes as a row
    any other list or tuple                               in order; `None` in a tuple is left out
                                                          where the other values are the outputs
    any other value                                       as the only output
    for `postprocess`, a tuple or a value where           as `output_0`, `output_1`, …
        model.yaml has another number of outputs

Values that the specification does not name are left out before anything is done with them: they are
neither copied from the device nor converted. Only their names are kept, for error texts and for
`batcher check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

from batcher.core.error_text import brief_names
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.errors import ModelContractError
from batcher.models.plain_calls import check_returned

_ABSENT = object()

_BY_NAME = (Mapping, SimpleNamespace)
"""What holds values by name alone, and in no order that an author has chosen for them."""


def named_outputs(
    result: Any, spec: ModelSpec, is_raw: bool = False
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the outputs that are in `result` by name, and the names of values that are left out.

    With `is_raw` the outputs are those for `postprocess`, of which `spec` says nothing: then all
    values with a name are outputs, but None. Any thread.

    Raises:
        ModelContractError: the result does not tell the outputs; the message says what to write.
    """
    # A single tensor is common; to ask for its kind would cost each batch.
    if type(result).__module__ == "torch" and len(spec.outputs) == 1:
        return {spec.outputs[0].name: result}, ()
    found = members(result)
    if found is None:
        return _by_rows_or_order(result, spec, is_raw), ()
    if is_raw:
        return _raw_outputs(found, spec), ()
    outputs = _found_outputs(found, spec)
    if len(outputs) == len(spec.outputs) == len(found):
        return outputs, ()
    if not outputs and not isinstance(result, _BY_NAME) and not is_dataclass(result):
        return _in_order(result, spec), ()
    return outputs, _names_left_out(found, outputs, spec)


def _names_left_out(
    found: Mapping[Any, Any], outputs: Mapping[str, Any], spec: ModelSpec
) -> tuple[str, ...]:
    """Return the names of what is in `found` besides `outputs`; raises as `named_outputs`."""
    if len(outputs) < len(spec.outputs):
        _check_keys(found, spec)
    return tuple(name for name, _ in _flat(found, "") if name not in outputs)


def _raw_outputs(found: Mapping[Any, Any], spec: ModelSpec) -> dict[str, Any]:
    """Return the values in `found` for `postprocess`; raises as `named_outputs`. Any thread."""
    _check_keys(found, spec)
    return {name: value for name, value in _flat(found, "") if value is not None}


def _check_keys(found: Mapping[Any, Any], spec: ModelSpec) -> None:
    """Check that the names of values that a model returned are texts. Any thread.

    Raises:
        ModelContractError: one of them is a number, or whatever else.
    """
    if wrong := keys_without_text(found):
        example = ", ".join(f"{tensor.name!r}: …" for tensor in spec.outputs)
        raise ModelContractError(
            f"model {spec.name!r}: expected values by names, which are texts; got a mapping with "
            f"the keys {wrong}: return a dict such as {{{example}}}"
        )


def keys_without_text(found: Mapping[Any, Any]) -> str:
    """Return the first keys of `found` that are no texts, and their classes. Any thread."""
    wrong = [f"{key!r} ({type(key).__name__})" for key in found if not isinstance(key, str)]
    return ", ".join(wrong[:3])


def _found_outputs(found: Mapping[Any, Any], spec: ModelSpec) -> dict[str, Any]:
    """Return those outputs of `spec` that are in `found`; raises as `named_outputs`. Any thread."""
    outputs = {}
    for tensor in spec.outputs:
        value = _lookup(found, tensor.name)
        # Nearly always: an array or a tensor.
        if hasattr(value, "__array__"):
            outputs[tensor.name] = value
        elif value is not _ABSENT:
            outputs[tensor.name] = _checked(value, tensor, spec)
    return outputs


def members(value: Any) -> Mapping[Any, Any] | None:
    """Return what `value` holds by name; None if it holds nothing by name. Any thread."""
    if type(value) is dict or isinstance(value, Mapping):
        return value
    if hasattr(value, "dtype"):
        names = getattr(value.dtype, "names", None)  # those of a structured array
        return {name: value[name] for name in names} if names else None
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        return None if names is None else dict(zip(names, value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, SimpleNamespace):
        return vars(value)
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):  # a table of pandas or polars
        return {str(name): value[name] for name in value.columns}
    return None


def _lookup(found: Mapping[Any, Any], name: str) -> Any:
    """Return the value called `name`, or `outer.inner`, in `found`; `_ABSENT` if there is none."""
    if name in found:
        return found[name]
    outer, dot, inner = name.partition(".")
    within = members(found[outer]) if dot and outer in found else None
    return _ABSENT if within is None else _lookup(within, inner)


def _flat(found: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield all values in `found` with their names; those within another as `outer.inner`."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _checked(value: Any, tensor: TensorSpec, spec: ModelSpec) -> Any:
    """Return `value`, which a model returned for an output.

    Raises:
        ModelContractError: the value is None, a mapping, or not there yet (a coroutine).

    Any thread.
    """
    if hasattr(value, "__array__"):  # nearly always: an array or a tensor
        return value
    place = f"model {spec.name!r}: output {tensor.name!r}"
    if value is None:
        raise ModelContractError(f"{place}: expected {tensor.describe()}; got None")
    if isinstance(value, Mapping):
        names = [f"{tensor.name}.{name}" for name in value]
        raise ModelContractError(
            f"{place}: expected {tensor.describe()}; got a mapping: declare its values as outputs "
            f"in model.yaml, by the names {brief_names(names) or 'that it has'}"
        )
    check_returned(value, place)
    return value


def _by_rows_or_order(result: Any, spec: ModelSpec, is_raw: bool) -> dict[str, Any]:
    """Return the outputs in a `result` without names; raises as `named_outputs`. Any thread."""
    if hasattr(result, "__array__"):
        return _in_order(result, spec, is_raw)
    _check_values(result, spec)
    if isinstance(result, list | tuple):
        rows = [None if isinstance(row, BaseException) else members(row) for row in result]
        first = next((row for row in rows if row is not None), None)
        if first is not None and (is_raw or any(_has(first, tensor) for tensor in spec.outputs)):
            if len(result) == 1 and not is_raw and _is_whole(first, spec):
                return _found_outputs(first, spec)
            _refuse_mixture(result, rows, spec)
            return _columns(list(zip(result, rows, strict=True)), spec, is_raw)
    if isinstance(result, list) and len(spec.outputs) == 1 and not is_raw:
        tensor = spec.outputs[0]
        if _are_rows(result, tensor):
            return {tensor.name: result}
    return _in_order(result, spec, is_raw)


def _refuse_mixture(result: Any, rows: Sequence[Any], spec: ModelSpec) -> None:
    """Raise ModelContractError if `result` is a tuple of outputs, of which some are by name.

    `rows` are what the elements hold by name. Any thread.
    """
    unnamed = [
        type(value).__name__
        for value, row in zip(result, rows, strict=True)
        if row is None and not isinstance(value, BaseException)
    ]
    if isinstance(result, tuple) and unnamed:
        example = ", ".join(f"{tensor.name!r}: …" for tensor in spec.outputs)
        raise ModelContractError(
            f"model {spec.name!r}: expected all outputs by name, or none; got a tuple of mappings "
            f"and of {', '.join(unnamed)}: return one dict such as {{{example}}}"
        )


def _check_values(result: Any, spec: ModelSpec) -> None:
    """Check that `result` holds values, in some order. Any thread.

    Raises:
        ModelContractError: the result is None, a set, or an iterator that somebody has to step
            through.
    """
    check_returned(result, f"model {spec.name!r}")
    if result is None or isinstance(result, Iterator | set | frozenset):
        got = "None" if result is None else f"a {type(result).__name__}"
        example = ", ".join(f"{tensor.name!r}: …" for tensor in spec.outputs)
        raise ModelContractError(
            f"model {spec.name!r}: expected outputs; got {got}: return a dict such as {{{example}}}"
        )


def _has(row: Mapping[Any, Any], tensor: TensorSpec) -> bool:
    return _lookup(row, tensor.name) is not _ABSENT


def _is_whole(found: Mapping[Any, Any], spec: ModelSpec) -> bool:
    """Return whether `found` holds outputs of a batch, and not those of a single row. Any thread.

    The number of axes decides, as in `_are_rows`.
    """
    values = [(_lookup(found, tensor.name), tensor) for tensor in spec.outputs]
    return all(
        value is not _ABSENT and _axes(value) == len(tensor.shape) + 1 for value, tensor in values
    )


def _columns(
    rows: list[tuple[Any, Mapping[Any, Any] | None]], spec: ModelSpec, is_raw: bool
) -> dict[str, Any]:
    """Return each output as a list of rows, from what was returned for each row.

    `rows` are what the model returned for a row, and what that holds by name. An exception in the
    place of a row, or of one of its values, stays an exception.
    """
    found = [row for _, row in rows if row is not None]
    names = list(dict(_flat(found[0], ""))) if is_raw else [each.name for each in spec.outputs]
    columns: dict[str, Any] = {}
    for name in names:
        column = columns[name] = []
        for index, (returned, row) in enumerate(rows):
            value = returned if row is None else _lookup(row, name)
            if value is _ABSENT or (row is None and not isinstance(returned, BaseException)):
                got = type(returned).__name__ if row is None else brief_names(row) or "none"
                value = ModelContractError(
                    f"model {spec.name!r}: row {index}: expected output {name!r}; got {got}"
                )
            column.append(value)
    return columns


def _are_rows(values: list[Any], tensor: TensorSpec) -> bool:
    """Return whether the elements of a list are the rows of `tensor`, the only output.

    A list of one element may also be a list of all outputs. The number of axes decides: an output
    has one axis more than a row.
    """
    sound = [value for value in values if not isinstance(value, BaseException)]
    return not sound or any(_axes(value) == len(tensor.shape) for value in sound)


def _axes(value: Any) -> int:
    """Return the number of axes of an array or a tensor, or the levels of nested lists."""
    axes = 0
    while isinstance(value, list | tuple):
        axes += 1
        if not value:
            return axes
        value = value[0]
    return axes + getattr(value, "ndim", 0)


def _row_advice(values: Sequence[Any], spec: ModelSpec) -> str:
    """Return what to write in place of a list of rows that hold all outputs; mostly nothing."""
    count = len(spec.outputs)
    if count < 2 or not all(type(row) is tuple and len(row) == count for row in values):
        return ""
    example = ", ".join(f"{tensor.name!r}: …" for tensor in spec.outputs)
    return (
        f": each element is a tuple of {count} values, as rows are: return a dict such as "
        f"{{{example}}} for each row; or arrays, one for each output"
    )


def _order_advice(result: Any, spec: ModelSpec) -> str:
    """Return what to write in place of a tuple of more values than outputs. Any thread."""
    if not isinstance(result, tuple) or len(result) < len(spec.outputs):
        return ""
    example = ", ".join(f"{tensor.name!r}: …" for tensor in spec.outputs)
    return (
        ": values of a tuple have no names. List all of them in model.yaml, in their order, or "
        f"return a dict such as {{{example}}}, of which what model.yaml does not name is left out"
    )


def _in_order(result: Any, spec: ModelSpec, is_raw: bool = False) -> dict[str, Any]:
    """Return the values of a sequence, or a single value, as outputs in their order. Any thread."""
    is_sequence = isinstance(result, Sequence) and not isinstance(result, str | bytes)
    values = list(result) if is_sequence else [result]
    if len(values) != len(spec.outputs) and isinstance(result, tuple) and not is_raw:
        # Weights of attention that nobody asked for, a loss without labels: no output is None.
        values = [value for value in values if value is not None]
    if len(values) != len(spec.outputs):
        # A list may be one of rows: to name those outputs would hide the mistake.
        if is_raw and not isinstance(result, list):
            return {f"output_{at}": value for at, value in enumerate(values) if value is not None}
        raise ModelContractError(
            f"model {spec.name!r}: expected {len(spec.outputs)} outputs; got {len(values)}"
            f"{_row_advice(values, spec) or _order_advice(result, spec)}"
        )
    if isinstance(result, list) and (advice := _row_advice(values, spec)):
        # As many rows as outputs: to take either for the other would be wrong in silence.
        raise ModelContractError(
            f"model {spec.name!r}: expected outputs; got a list of {len(values)} tuples{advice}"
        )
    return {
        tensor.name: _checked(value, tensor, spec)
        for tensor, value in zip(spec.outputs, values, strict=True)
    }

"""The two layouts of a request in the formats of named values (JSON, MessagePack).

    by input   {"inputs": {name: rows, …}}
    by row     {"instances": [row, …]}

A row is an object `{name: value}`. For a model of one input the bare value may stand in the place
of the object, in both layouts; so it may where all other inputs are optional. What one row of one
element is cannot be misread, so such a row needs no list of its own:

    input     its rows                 also
    BYTES[]   ["a", "b"]   ["a"]       "a" for one row
    BYTES[1]  [["a"], ["b"]]           ["a", "b"], and "a" for one row
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.formats.base64_values import B64, base64_text
from batcher.codecs.formats.body_advice import advice
from batcher.codecs.formats.long_lists import ArrayBuilder, LongList, array_from_value, stacked
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief_names
from batcher.core.spec import Array, ModelSpec, TensorSpec, input_names, wrong_names
from batcher.errors import InvalidInput

_ONE_ELEMENT = ((), (1,))
"""Shapes of a row of one element."""


def inputs_from_document(
    document: Any, spec: ModelSpec, limits: DecodingLimits = NO_LIMITS
) -> dict[str, Array]:
    """Return the inputs in a decoded document of either layout.

    Values are nested lists or arrays. Other members are ignored, since clients of other servers
    send some.

    Raises:
        InvalidInput: neither or both layouts are there, the model has no input of a name, or a
            value does not fit its input.
        TooLarge: a long list has more rows or values than `limits` allow.
    """
    named = _by_input(document, spec, limits)
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    # Whoever gets the inputs may rely on arrays, and a value without a spec cannot become one.
    if named.keys() - tensors.keys():
        raise wrong_names(spec, named)
    return {
        name: _array(value, tensors[name], limits)
        for name, value in named.items()
        if value is not None or not tensors[name].is_optional
    }


def _by_input(document: Any, spec: ModelSpec, limits: DecodingLimits) -> dict[str, Any]:
    """Return input name to values from a document of either layout. Raises InvalidInput."""
    if not isinstance(document, dict):
        raise InvalidInput(
            f'body: expected an object with "inputs" or "instances"; got {_kind(document)}'
            f"{advice(document, spec)}"
        )
    if ("inputs" in document) == ("instances" in document):
        got = brief_names(document) or "an empty object"
        more = "" if "inputs" in document else advice(document, spec)
        raise InvalidInput(f'body: expected either "inputs" or "instances"; got {got}{more}')
    if "instances" in document:
        return _columns(document["instances"], spec, limits)
    named, only = document["inputs"], only_name(spec)
    if only and is_bare(named, only):
        return {only: named}
    if not isinstance(named, dict):
        raise InvalidInput(f'"inputs": expected an object of name to values; got {_kind(named)}')
    return named


def only_name(spec: ModelSpec) -> str:
    """Return the name of the one input that a request must have; empty if there are several."""
    required = spec.required
    return required[0].name if len(required) == 1 else ""


def is_bare(value: Any, only: str) -> bool:
    """Return whether `value` is of the input `only` itself, and no object of names."""
    return not isinstance(value, dict) or (only != B64 and base64_text(value) is not None)


def _are_bare(rows: list[Any], only: str) -> bool:
    # At the speed of C for most requests, which have no object among their rows.
    return dict not in set(map(type, rows)) or all(is_bare(row, only) for row in rows)


def _kind(value: Any) -> str:
    return "list" if isinstance(value, LongList) else type(value).__name__


def _array(value: Any, tensor: TensorSpec, limits: DecodingLimits) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and all(isinstance(row, np.ndarray) for row in value):
        return stacked(value, tensor)
    if tensor.shape in _ONE_ELEMENT and _is_element(value):
        value = [value]
    return _in_rows(array_from_value(value, tensor, limits), tensor)


def _is_element(value: Any) -> bool:
    return isinstance(value, str | bytes | int | float) or base64_text(value) is not None


def _in_rows(array: Array, tensor: TensorSpec) -> Array:
    """Return an array of one element a row with the axis that a row has."""
    return array.reshape(-1, 1) if tensor.shape == (1,) and array.ndim == 1 else array


def _columns(instances: Any, spec: ModelSpec, limits: DecodingLimits) -> dict[str, Any]:
    """Return input name to values, or to an array, of rows. Raises InvalidInput."""
    if isinstance(instances, LongList):
        return _long_columns(instances, spec, limits)
    if not isinstance(instances, list):
        raise InvalidInput(f'"instances": expected a list of rows; got {type(instances).__name__}')
    only = only_name(spec)
    if only and _are_bare(instances, only):
        return {only: instances}
    return _by_name(instances, spec, 0)


def _by_name(rows: list[Any], spec: ModelSpec, first: int) -> dict[str, list[Any]]:
    """Return name to values of rows, the first of which has the index `first`."""
    known = {tensor.name for tensor in spec.inputs}
    required = {tensor.name for tensor in spec.required}
    for index, row in enumerate(rows, first):
        if not isinstance(row, dict) or not required <= row.keys() <= known:
            got = brief_names(row) if isinstance(row, dict) else _kind(row)
            raise InvalidInput(
                f'"instances"[{index}]: expected an object of {input_names(spec)}; got {got}'
            )
    columns = {name: [row[name] for row in rows] for name in required}
    for tensor in spec.inputs:
        if tensor.is_optional and (column := _optional_column(rows, tensor)):
            columns[tensor.name] = column
    return columns


def _optional_column(rows: list[dict[str, Any]], tensor: TensorSpec) -> list[Any]:
    """Return the values of an optional input, with its default in the rows without a value.

    Returns:
        One value a row; none if the input has no default and no row has a value.

    Raises:
        InvalidInput: some rows have a value, others have none, and there is no default.
    """
    name = tensor.name
    # `null` means that the value is left out, unless it means NaN.
    null_is_left_out = not tensor.missing_is_nan
    given = [name in row and not (row[name] is None and null_is_left_out) for row in rows]
    if tensor.default is not None:
        default = tensor.default.tolist()
        return [row[name] if has else default for row, has in zip(rows, given, strict=True)]
    if 0 < sum(given) < len(rows):
        raise InvalidInput(
            f'"instances": expected {name!r} in all rows or in none, since it has no '
            f"default; got it in {sum(given)} of {len(rows)} rows"
        )
    return [row[name] for row in rows] if any(given) else []


def _long_columns(instances: LongList, spec: ModelSpec, limits: DecodingLimits) -> dict[str, Array]:
    """Return input name to array of a long list of rows."""
    builders = {tensor.name: ArrayBuilder(tensor, limits) for tensor in spec.inputs}
    only, first, given = only_name(spec), 0, set()
    for piece in instances.pieces():
        rows = piece if isinstance(piece, list) else [piece]
        if only and _are_bare(rows, only):
            builders[only].add(piece)
            given.add(only)
        else:
            for name, values in _by_name(rows, spec, first).items():
                _add(builders[name], values)
                given.add(name)
        first += len(rows)
    return {
        tensor.name: _in_rows(builders[tensor.name].array(), tensor)
        for tensor in spec.inputs
        if tensor.name in given
    }


def _add(builder: ArrayBuilder, values: list[Any]) -> None:
    """Add rows to `builder`, some of which may be long lists."""
    if any(issubclass(kind, LongList) for kind in set(map(type, values))):
        for value in values:
            builder.add(value if isinstance(value, LongList) else [value])
    else:
        builder.add(values)

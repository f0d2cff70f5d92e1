"""The two layouts of a request in the formats of named values (JSON, MessagePack).

    by input   {"inputs": {name: rows, …}}
    by row     {"instances": [row, …]}

A row is an object `{name: value}`; for a model of one input a row may also be the bare value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.formats.long_lists import ArrayBuilder, LongList, array_from_value, stacked
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.error_text import brief_names
from batcher.core.spec import Array, ModelSpec, TensorSpec, input_names, wrong_names
from batcher.errors import InvalidInput


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
        )
    if ("inputs" in document) == ("instances" in document):
        got = brief_names(document) or "an empty object"
        raise InvalidInput(f'body: expected either "inputs" or "instances"; got {got}')
    if "instances" in document:
        return _columns(document["instances"], spec, limits)
    named = document["inputs"]
    if not isinstance(named, dict):
        raise InvalidInput(f'"inputs": expected an object of name to values; got {_kind(named)}')
    return named


def _kind(value: Any) -> str:
    return "list" if isinstance(value, LongList) else type(value).__name__


def _array(value: Any, tensor: TensorSpec, limits: DecodingLimits) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and all(isinstance(row, np.ndarray) for row in value):
        return stacked(value, tensor)
    return array_from_value(value, tensor, limits)


def _columns(instances: Any, spec: ModelSpec, limits: DecodingLimits) -> dict[str, Any]:
    """Return input name to values, or to an array, of rows. Raises InvalidInput."""
    if isinstance(instances, LongList):
        return _long_columns(instances, spec, limits)
    if not isinstance(instances, list):
        raise InvalidInput(f'"instances": expected a list of rows; got {type(instances).__name__}')
    names = [tensor.name for tensor in spec.inputs]
    if len(names) == 1 and not any(isinstance(row, dict) for row in instances):
        return {names[0]: instances}
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
    names, first, given = list(builders), 0, set()
    for piece in instances.pieces():
        rows = piece if isinstance(piece, list) else [piece]
        if len(names) == 1 and not any(isinstance(row, dict) for row in rows):
            builders[names[0]].add(piece)
            given.add(names[0])
        else:
            for name, values in _by_name(rows, spec, first).items():
                _add(builders[name], values)
                given.add(name)
        first += len(rows)
    return {name: builder.array() for name, builder in builders.items() if name in given}


def _add(builder: ArrayBuilder, values: list[Any]) -> None:
    """Add rows to `builder`, some of which may be long lists."""
    if any(issubclass(kind, LongList) for kind in set(map(type, values))):
        for value in values:
            builder.add(value if isinstance(value, LongList) else [value])
    else:
        builder.add(values)

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
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput


def inputs_from_document(
    document: Any, spec: ModelSpec, limits: DecodingLimits = NO_LIMITS
) -> dict[str, Array]:
    """Return the inputs in a decoded document of either layout.

    Values are nested lists or arrays. Other members are ignored, since clients of other servers
    send some.

    Raises:
        InvalidInput: neither or both layouts are there, or a value does not fit its input.
        TooLarge: a long list has more rows or values than `limits` allow.
    """
    named = _by_input(document, spec, limits)
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    # names that the model lacks stay: the check of the inputs refuses them with the names it knows
    return {
        name: _array(value, tensors[name], limits) if name in tensors else value
        for name, value in named.items()
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
    return _by_name(instances, names, 0)


def _by_name(rows: list[Any], names: list[str], first: int) -> dict[str, list[Any]]:
    """Return name to values of rows, the first of which has the index `first`."""
    expected = set(names)
    for index, row in enumerate(rows, first):
        if not isinstance(row, dict) or set(row) != expected:
            got = brief_names(row) if isinstance(row, dict) else _kind(row)
            raise InvalidInput(
                f'"instances"[{index}]: expected an object of {", ".join(map(repr, names))}; got '
                f"{got}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _long_columns(instances: LongList, spec: ModelSpec, limits: DecodingLimits) -> dict[str, Array]:
    """Return input name to array of a long list of rows."""
    builders = {tensor.name: ArrayBuilder(tensor, limits) for tensor in spec.inputs}
    names, first = list(builders), 0
    for piece in instances.pieces():
        rows = piece if isinstance(piece, list) else [piece]
        if len(names) == 1 and not any(isinstance(row, dict) for row in rows):
            builders[names[0]].add(piece)
        else:
            for name, values in _by_name(rows, names, first).items():
                _add(builders[name], values)
        first += len(rows)
    return {name: builder.array() for name, builder in builders.items()}


def _add(builder: ArrayBuilder, values: list[Any]) -> None:
    """Add rows to `builder`, some of which may be long lists."""
    if any(issubclass(kind, LongList) for kind in set(map(type, values))):
        for value in values:
            builder.add(value if isinstance(value, LongList) else [value])
    else:
        builder.add(values)

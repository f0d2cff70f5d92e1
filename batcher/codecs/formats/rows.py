"""The two layouts of a request in the formats of named values (JSON, MessagePack).

    by input   {"inputs": {name: rows, …}}
    by row     {"instances": [row, …]}

A row is an object `{name: value}`; for a model of one input a row may also be the bare value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.formats.nested_lists import array_from_lists
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput


def inputs_from_document(document: Any, spec: ModelSpec) -> dict[str, Array]:
    """Return the inputs in a decoded document of either layout.

    Values are nested lists or arrays. Other members are ignored, since clients of other servers
    send some.

    Raises:
        InvalidInput: neither or both layouts are there, or a value does not fit its input.
    """
    named = _by_input(document, spec)
    tensors = {tensor.name: tensor for tensor in spec.inputs}
    # names that the model lacks stay: the check of the inputs refuses them with the names it knows
    return {
        name: _array(value, tensors[name]) if name in tensors else value
        for name, value in named.items()
    }


def _by_input(document: Any, spec: ModelSpec) -> dict[str, Any]:
    """Return input name to values from a document of either layout. Raises InvalidInput."""
    if not isinstance(document, dict):
        raise InvalidInput(
            f'body: expected an object with "inputs" or "instances"; got {type(document).__name__}'
        )
    if ("inputs" in document) == ("instances" in document):
        got = ", ".join(map(repr, list(document)[:8])) or "an empty object"
        raise InvalidInput(f'body: expected either "inputs" or "instances"; got {got}')
    named = document["inputs"] if "inputs" in document else _columns(document["instances"], spec)
    if not isinstance(named, dict):
        raise InvalidInput(
            f'"inputs": expected an object of name to values; got {type(named).__name__}'
        )
    return named


def _array(value: Any, tensor: TensorSpec) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and all(isinstance(row, np.ndarray) for row in value):
        return _stacked(value, tensor)
    return array_from_lists(value, tensor)


def _stacked(rows: list[Array], tensor: TensorSpec) -> Array:
    if len({(row.dtype, row.shape) for row in rows}) > 1:
        raise InvalidInput(
            f"input {tensor.name!r}: expected rows of one dtype and shape; got several"
        )
    return np.stack(rows)


def _columns(instances: Any, spec: ModelSpec) -> dict[str, Any]:
    if not isinstance(instances, list):
        raise InvalidInput(f'"instances": expected a list of rows; got {type(instances).__name__}')
    names = [tensor.name for tensor in spec.inputs]
    if len(names) == 1 and not any(isinstance(row, dict) for row in instances):
        return {names[0]: instances}
    for index, row in enumerate(instances):
        if not isinstance(row, dict) or set(row) != set(names):
            got = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
            raise InvalidInput(
                f'"instances"[{index}]: expected an object of {", ".join(map(repr, names))}; got '
                f"{got}"
            )
    return {name: [row[name] for row in instances] for name in names}

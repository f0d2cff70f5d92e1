"""Rows that are decoded together, where some cannot be decoded.

All rows are decoded at once, which is quick. If that fails, their two halves are tried, and so on,
until the bad rows stand alone: k bad ones among n cost some 2 * k * log2(n) more steps. Rows of
different shapes cannot be decoded together either, and end in groups of one shape each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from batcher.core.portions import Group
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import BatcherError, ClientError, DecodingError, InputSourceFailed

Inputs = Mapping[str, Array]

FAULTS: Final = (ClientError, InputSourceFailed)
"""What is the fault of one row, or of a file that it names."""

_PLACE = re.compile(r'(?:body|line [12]|"instances"\[0\]): ')
"""Where an error of a row that was decoded alone says that it stands: the job knows better."""


def grouped(
    spec: ModelSpec, rows: Sequence[int], decode: Callable[[int, int], Inputs]
) -> tuple[list[Group], dict[int, BatcherError]]:
    """Return the groups of `rows` that can be decoded, and the errors of the others.

    `decode(start, stop)` returns the inputs of the rows from the index `start` up to, not
    including, `stop`; it raises one of `FAULTS`.
    """
    found: list[Group] = []
    bad: dict[int, BatcherError] = {}
    # Parts that are still to be decoded, the first of them last.
    parts = [(0, len(rows))] if rows else []
    while parts:
        start, stop = parts.pop()
        try:
            inputs = _checked(spec, decode(start, stop), stop - start)
        except FAULTS as err:
            middle = (start + stop) // 2
            if middle == start:
                bad[rows[start]] = _alone(err)
            else:
                parts += [(middle, stop), (start, middle)]
        else:
            found.append(Group(rows[start:stop], inputs))
    return merged(found), bad


def _checked(spec: ModelSpec, inputs: Inputs, expected: int) -> Inputs:
    """Return `inputs`, which are so many rows of the model. Raises ClientError."""
    rows = check_inputs(spec, inputs)
    if rows != expected:
        raise DecodingError(f"expected {expected} rows; got {rows}")
    return inputs


def _alone(error: BatcherError) -> BatcherError:
    text = str(error)
    found = _PLACE.match(text)
    return type(error)(text[found.end() :]) if found else error


def merged(groups: Sequence[Group]) -> list[Group]:
    """Return `groups`, those of one shape joined."""
    if len(groups) < 2:
        return list(groups)
    by_shape: dict[object, list[Group]] = {}
    for group in groups:
        shape = tuple(sorted((name, array.shape[1:]) for name, array in group.inputs.items()))
        by_shape.setdefault(shape, []).append(group)
    return [_joined(same) for same in by_shape.values()]


def _joined(groups: list[Group]) -> Group:
    if len(groups) == 1:
        return groups[0]
    inputs = {
        name: np.concatenate([group.inputs[name] for group in groups]) for name in groups[0].inputs
    }
    rows = [row for group in groups for row in group.rows]
    return Group(rows, inputs)

"""What a pipeline computes itself for a request: rows that are chosen or joined, authors' code.

NumPy works on the loop for a small request, and on the CPU pool for a large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from batcher.core.device_rows import InputsOnDevice, RowsOnDevice, rows_on_device
from batcher.core.element_sizes import about_nbytes
from batcher.core.spec import Array
from batcher.models.hook_contract import own_copy, run_postprocess
from batcher.serving.pipelines.graph import Node
from batcher.serving.pipelines.rows import chosen_rows, merged

MAX_LOOP_BYTES: Final = 128 << 10
"""Bytes of arrays up to which NumPy works on the loop: some tens of microseconds."""

MAX_SORTED_BYTES: Final = 32 << 10
"""The same of built-in steps: to sort 8,192 scores takes half a millisecond."""

MAX_LOOP_ROWS: Final = 256
"""Rows up to which a step works on the loop: ragged rows, and those that are folded, cost one to
three microseconds each.
"""


def is_quick(node: Node, values: Mapping[str, Array], most: int) -> bool:
    """Return whether `node` may work on the loop, for at most `most` bytes of `values`."""
    return len(values[node.first]) <= MAX_LOOP_ROWS and bytes_of(node, values) <= most


def bytes_of(node: Node, values: Mapping[str, Array]) -> int:
    """Return about the bytes of the `values` that `node` works on."""
    total = 0
    for reference in node.looks_at:
        array = values[reference]
        total += about_nbytes({reference: array}) if array.dtype.hasobject else array.nbytes
    return total


def choose(
    node: Node, inputs: dict[str, Array], values: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """Return the places of the rows that a step gets, and its inputs with them. Any thread."""
    assert node.test is not None, "a step that chooses has a condition"
    mask = node.test(values)
    places: Array = mask.nonzero()[0]
    # Without a row the step is not called.
    is_part = 0 < len(places) < len(mask)
    return places, chosen_rows(inputs, places) if is_part else inputs


def joined(node: Node, values: Mapping[str, Array], places: Array, rows: int) -> dict[str, Array]:
    """Return what a step with a condition gives for all `rows` rows, by reference. Any thread.

    The step has got the rows at `places`.
    """
    outputs: dict[str, Array] = {}
    for join in node.joins:
        other = values[join.otherwise] if join.otherwise else join.fixed
        assert other is not None, "rows that a step does not get have a value"
        outputs[join.name] = merged(join.tensor, values[join.chosen], places, other, rows)
    return outputs


def run_code(node: Node, inputs: dict[str, Array], rows: int) -> dict[str, Array]:
    """Return what the author's code makes of the rows of one request. Pool thread."""
    assert node.code is not None, "a step of code has code"
    return run_postprocess(node.code, own_copy(inputs), node.spec, rows)


def values_on_device(
    node: Node, values: Mapping[str, Array], known: dict[int, RowsOnDevice] | None
) -> dict[int, RowsOnDevice] | None:
    """Return where values lie on a device, by the `id` of their arrays. Reactor thread.

    These are those that were `known`, and those that `node` has made now.
    """
    for reference in node.keeps:
        array = values[reference]
        rows = rows_on_device(array)
        if rows is not None:
            known = known or {}
            known[id(array)] = rows
    return known


def inputs_on_device(
    node: Node, inputs: dict[str, Array], known: Mapping[int, RowsOnDevice]
) -> dict[str, Array]:
    """Return the `inputs` of `node`, together with where they lie on a device. Reactor thread.

    An array with the rows that a condition has chosen is another one than the one that was kept.
    """
    twins: dict[str, RowsOnDevice] = {}
    for name in node.takes:
        twin = known.get(id(inputs[name]))
        if twin is not None:
            twins[name] = twin
    if not twins:
        return inputs
    found = InputsOnDevice(inputs)
    found.twins = twins
    return found

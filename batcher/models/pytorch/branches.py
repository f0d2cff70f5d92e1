"""Branches (`torch.cond`) that an exported program takes by values of its inputs.

A branch is taken once for all rows of a batch. Where a value of an input decides, the answer for a
row may depend on its neighbours. Where a size decides, or a buffer of the program, it does not.
"""

from __future__ import annotations

import torch

from batcher.models.pytorch.batch_sizes import BatchSizes

_SIZES = (torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default)
"""Operators whose results depend on the sizes of their inputs alone."""


def branch_note(program: torch.export.ExportedProgram, sizes: BatchSizes) -> str:
    """Return the note that `program`, which takes batches of `sizes`, takes a branch by a value.

    Empty if it takes none, or one row alone. Any thread.
    """
    if sizes.max_rows == 1 or not _decides_by_value(program):
        return ""
    return (
        "the program takes a branch (torch.cond) by values, once for all rows of a batch. If a row "
        "alone may take another branch, set max_batch_size to 1"
    )


def _decides_by_value(program: torch.export.ExportedProgram) -> bool:
    """Return whether a branch of `program` depends on values of its inputs. Any thread."""
    inputs = set(program.graph_signature.user_inputs)
    reached = {node for node in program.graph.nodes if node.name in inputs}
    for node in program.graph.nodes:
        if node.target is torch.ops.higher_order.cond and node.args[0] in reached:
            return True
        if node.target not in _SIZES and not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    return False

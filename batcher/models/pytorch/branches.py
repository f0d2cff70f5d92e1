"""Branches (`torch.cond`) that an exported program takes by values.

A branch is taken once for all rows of a batch. Where a value decides, the answer for a row may
depend on its neighbours; where a size decides, which is a symbol and no tensor, it does not.
"""

from __future__ import annotations

import torch

from batcher.models.pytorch.batch_sizes import BatchSizes


def branch_note(program: torch.export.ExportedProgram, sizes: BatchSizes) -> str:
    """Return the note that `program`, which takes batches of `sizes`, takes a branch by a value.

    Empty if it takes none, or one row alone. Any thread.
    """
    decisions = [
        node.args[0]
        for node in program.graph.nodes
        if node.op == "call_function" and node.target is torch.ops.higher_order.cond
    ]
    if sizes.max_rows == 1 or not any(map(_is_value, decisions)):
        return ""
    return (
        "the program takes a branch (torch.cond) by values, once for all rows of a batch. If a row "
        "alone may take another branch, set max_batch_size to 1"
    )


def _is_value(decision: object) -> bool:
    """Return whether a node of the program gives a tensor, and no size. Any thread."""
    value = decision.meta.get("val") if isinstance(decision, torch.fx.Node) else None
    return isinstance(value, torch.Tensor)

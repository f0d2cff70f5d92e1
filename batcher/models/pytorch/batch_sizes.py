"""Which numbers of rows an exported program takes.

An export states the numbers that its program takes: `Dim("batch", min=4, max=32)`, the multiples of
a number, or the one number of its example. The largest number limits the scheduler (`max_rows` of
the model). A batch of a number that the program does not take is padded with copies of its last
row, and what the program makes of the copies is thrown away:

    rows of the batch    min=4 runs as    multiples of 8 run as
    3                    4                8
    9                    9                16
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import lcm
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

UNBOUNDED = 1 << 30
"""Rows that no batch has: the setting `max_batch_size` stays far below."""

SPECIALISED_ROWS = 2
"""The lower bound of an export that states none.

PyTorch treats 0 and 1 as constants while it exports. Most of its programs take a single row all the
same, so whether a program does is tried when the program is loaded.
"""


class BatchSizes(NamedTuple):
    """The numbers of rows that a program takes.

    Attributes:
        least: the smallest number.
        most: the largest number.
        multiple: all numbers are multiples of this one.
    """

    least: int = 1
    most: int = UNBOUNDED
    multiple: int = 1

    @property
    def max_rows(self) -> int | None:
        """The largest number that is taken; None if there is none."""
        return None if self.most >= UNBOUNDED else self.most - self.most % self.multiple

    @property
    def is_one(self) -> bool:
        """Whether one number alone is taken."""
        return self.least == self.most

    @property
    def need_padding(self) -> bool:
        """Whether some batches up to the largest one are padded."""
        return self.least > 1 or self.multiple > 1

    def padded(self, rows: int) -> int:
        """Return the smallest number that is taken, of at least `rows`. Any thread."""
        rows = max(rows, self.least)
        return rows + -rows % self.multiple

    def __str__(self) -> str:
        """Return the numbers in words. Any thread."""
        if self.is_one:
            return f"{self.least} rows"
        words = [f"a multiple of {self.multiple} rows"] if self.multiple > 1 else []
        words += [f"at least {self.least} rows"] if self.least > 1 else []
        words += [f"at most {self.max_rows} rows"] if self.max_rows is not None else []
        return ", ".join(words)


ANY_SIZE = BatchSizes()


class Padded(torch.nn.Module):
    """A module that takes some numbers of rows only, called with any number up to the largest."""

    def __init__(self, module: Callable[..., Any], sizes: BatchSizes) -> None:
        """Wrap `module`, which takes batches of `sizes`. Any thread."""
        super().__init__()
        self._module = module
        self._sizes = sizes

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the module returns for `inputs`, without the padding. Inference thread."""
        rows = len(inputs[0])
        missing = self._sizes.padded(rows) - rows
        if missing == 0:
            return self._module(*inputs)
        outputs = self._module(*[_padded(tensor, missing) for tensor in inputs])
        cut = partial(_cut, rows=rows, computed=rows + missing)
        return pytree.tree_map_only(torch.Tensor, cut, outputs)


def sizes_of(program: torch.export.ExportedProgram) -> BatchSizes:
    """Return which numbers of rows `program` takes, as its inputs state them. Any thread."""
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    ]
    each = [_axis_sizes(shape[0], program.range_constraints) for shape in shapes if len(shape)]
    return BatchSizes(
        max([size.least for size in each], default=1),
        min([size.most for size in each], default=UNBOUNDED),
        lcm(*[size.multiple for size in each]),
    )


def _padded(rows: torch.Tensor, missing: int) -> torch.Tensor:
    """Return `rows` and `missing` copies of the last row. Inference thread."""
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])


def _cut(output: torch.Tensor, rows: int, computed: int) -> torch.Tensor:
    """Return the first `rows` of the rows that were `computed`. Inference thread.

    An output of another number stays whole: the check of rows would not see it after a cut.
    """
    return output[:rows] if output.ndim and len(output) == computed else output


def _axis_sizes(axis: int | torch.SymInt, ranges: dict[Any, Any]) -> BatchSizes:
    """Return which sizes the first axis of an input may have. Any thread."""
    if isinstance(axis, int):
        return BatchSizes(axis, axis, axis)
    multiple, symbol = axis.node.expr.as_coeff_Mul()
    bounds = ranges.get(symbol)
    if bounds is None or not multiple.is_Integer:
        return ANY_SIZE
    least, most = (_bounded(bound) * int(multiple) for bound in (bounds.lower, bounds.upper))
    return BatchSizes(max(least, 1), min(most, UNBOUNDED), int(multiple))


def _bounded(bound: Any) -> int:
    """Return a bound of a range as a number; none is beyond UNBOUNDED. Any thread."""
    return int(bound) if bound < UNBOUNDED else UNBOUNDED

"""`cuda_graphs`: a batch as the replay of a graph, which is one call for all its kernels.

An eager module asks for each kernel from Python, which takes longer than most kernels run where
batches are small. A graph fixes the addresses that kernels read and write, and with them the rows:

    inputs of a batch --copied--> static inputs ==replay==> static outputs --copied--> host

So there is a graph for each size of `ladder`, and `SizedModel` fills a batch up to the next one.
Static inputs of all sizes are the first rows of one buffer, and all graphs take the rest of their
memory from one pool: only one of them runs at a time.

What a module decides in Python (which branch, which number) is fixed in its graph. So every graph
is tried on other inputs than it was captured with, and a module whose answers differ has no graphs.
A batch of another form than the captured ones runs as it would without graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from batcher.core.device_work import WorkCounts
from batcher.errors import ModelLoadError
from batcher.models.pytorch.comparing import is_close
from batcher.models.pytorch.gpu import Gpu, Graph
from batcher.models.pytorch.precision import Tolerance

Tensors = dict[str, torch.Tensor]
Call = Callable[[Tensors], Any]

RUNS_BEFORE_CAPTURE = 2
"""The first run chooses kernels and takes memory, which must not happen in a graph."""

WORTHWHILE = 0.9
"""Share of an eager batch's time that a replay may take to be worth its memory, under `auto`."""


def ladder(most: int) -> tuple[int, ...]:
    """Return the sizes of graphs for batches of up to `most` rows, ascending. Any thread.

    These are 1, 2, 4 and then four to each doubling, but even: 6, 8, 10, 12, 14, 16, 20, 24, 28,
    32, 40. So from 4 rows on, a batch of n rows is filled up by at most n / 4 rows. More sizes
    would take more memory and a longer start.
    """
    sizes, size = [], 1
    while size < most:
        sizes.append(size)
        size += 1 if size == 1 else max(2, (1 << size.bit_length() - 1) // 4)
    return (*sizes, most)


class _Captured(NamedTuple):
    graph: Graph
    inputs: Tensors
    outputs: Any


class Graphs:
    """Calls a module by graphs, where there are some. Inference thread.

    Attributes:
        call: takes the inputs of a batch by their names, and returns what the module returns. The
            tensors in it are used again by the next call.
    """

    def __init__(
        self, plain: Call, gpu: Gpu, stream: Any, tolerance: Tolerance, work: WorkCounts
    ) -> None:
        """Prepare for graphs of `plain`, which calls the module without them, on `stream`.

        Replays are counted in `work`.
        """
        self._plain = plain
        self._gpu = gpu
        self._stream = stream
        self._tolerance = tolerance
        self._work = work
        self._inputs: Tensors = {}
        self._captured: dict[Hashable, _Captured] = {}

    def call(self, tensors: Tensors) -> Any:
        """Return what the module makes of `tensors`. Inference thread."""
        captured = self._captured.get(_form(tensors))
        if captured is None:
            return self._plain(tensors)
        for name, static in captured.inputs.items():
            static.copy_(tensors[name], non_blocking=True)
        captured.graph.replay()
        self._work.graph_replays += 1
        return captured.outputs

    def capture(self, example: Tensors) -> None:
        """Capture a graph for batches of the form of `example`; the largest batch comes first.

        Raises:
            ModelLoadError: the module returns something else than tensors of its device, or other
                answers in a graph.
            RuntimeError: the module does something that cannot be captured.

        Inference thread.
        """
        inputs = {name: self._static(name, tensor) for name, tensor in example.items()}
        for _ in range(RUNS_BEFORE_CAPTURE):
            self._plain(inputs)
        graph, outputs = self._gpu.capture(self._stream, lambda: self._plain(inputs))
        _refuse_values(outputs, next(iter(inputs.values())).device)
        self._captured[_form(inputs)] = _Captured(graph, inputs, outputs)
        self._refuse_other_answers(example)

    def is_worthwhile(self, example: Tensors) -> bool:
        """Return whether a replay is clearly faster than the module itself. Inference thread."""
        own = self._gpu.seconds(self._stream, lambda: self._plain(example))
        return self._gpu.seconds(self._stream, lambda: self.call(example)) < WORTHWHILE * own

    def _static(self, name: str, example: torch.Tensor) -> torch.Tensor:
        """Return the static input `name` of as many rows as `example`, and with its values."""
        if name not in self._inputs:
            self._inputs[name] = torch.empty_like(example, memory_format=torch.contiguous_format)
        return self._inputs[name][: len(example)].copy_(example)

    def _refuse_other_answers(self, example: Tensors) -> None:
        """Raise ModelLoadError if a replay gives other answers than the module, on other values."""
        others = {name: _other_values(tensor) for name, tensor in example.items()}
        expected = pytree.tree_leaves(self._plain(others))
        got = pytree.tree_leaves(self.call(others))
        pairs = zip(got, expected, strict=True)
        if not all(is_close(new, old, self._tolerance) for new, old in pairs):
            raise ModelLoadError(
                "expected the same answers from a graph, in which what Python decides is fixed; "
                "got others"
            )


def _form(tensors: Tensors) -> Hashable:
    """Return what two batches of one graph have in common; clients order inputs as they like."""
    return frozenset((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())


def _other_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return other values for an input. Whole numbers may be indices, so they only change rows."""
    turned = tensor.flip(0)
    return turned * 0.5 + 0.25 if tensor.is_floating_point() else turned


def _refuse_values(outputs: Any, device: torch.device) -> None:
    """Raise ModelLoadError if `outputs` hold something that a replay would not change."""
    for value in pytree.tree_leaves(outputs):
        if not isinstance(value, torch.Tensor) or value.device != device:
            got = value.device if isinstance(value, torch.Tensor) else type(value).__name__
            raise ModelLoadError(
                f"expected outputs that are tensors on {device}, which a replay fills; got {got}"
            )

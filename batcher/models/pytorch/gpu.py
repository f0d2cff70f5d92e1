"""What a model asks of a GPU: streams, and graphs of what ran on a stream.

All that differs between CUDA and a device of the tests is here. A graph is a recording: while it is
captured, kernels are noted and not run; a replay runs all of them by one call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from time import perf_counter
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")

_TIMED_RUNS = 5
"""Runs of which the fastest counts: the others were held up by something else."""


class Stream(Protocol):
    """Work of a device in the order in which it was asked for."""

    def synchronize(self) -> None:
        """Wait until all work so far is done. Inference thread."""


class Graph(Protocol):
    """Work that was recorded, and can be run again."""

    def replay(self) -> None:
        """Ask the current stream for the work. Inference thread."""


class Gpu(Protocol):
    """A device whose work runs beside the processor's."""

    def stream(self) -> Stream:
        """Return a new stream. Inference thread."""

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Return a context in which work goes to `stream`. Inference thread."""

    def capture(self, stream: Any, run: Callable[[], Result]) -> tuple[Graph, Result]:
        """Record what `run` asks of `stream`; return the graph, and where its results will lie.

        Raises:
            RuntimeError: `run` waits for the device, or does what else cannot be recorded.

        Inference thread.
        """

    def seconds(self, stream: Any, run: Callable[[], object]) -> float:
        """Return how long `run` takes, until the device is done. Inference thread."""


class Cuda:
    """A GPU by CUDA."""

    def __init__(self, device: torch.device) -> None:
        """Use `device`. Inference thread."""
        self._device = device
        self._pool: Any = None

    def stream(self) -> torch.cuda.Stream:
        """Return a new stream. Inference thread."""
        return torch.cuda.Stream(self._device)

    def on(self, stream: torch.cuda.Stream) -> AbstractContextManager[Any]:
        """Return a context in which work goes to `stream`. Inference thread."""
        return torch.cuda.stream(stream)

    def capture(
        self, stream: torch.cuda.Stream, run: Callable[[], Result]
    ) -> tuple[torch.cuda.CUDAGraph, Result]:
        """Record what `run` asks of `stream`. All graphs share one pool of memory.

        They may: only one of a model runs at a time, and its results are copied before the next.
        A process may capture one graph at a time, which holds since its models load one by one.

        Inference thread.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other models may use the device meanwhile: what counts is what this thread does.
            with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                result = run()
        except BaseException:
            self._end_failed()
            raise
        return graph, result

    def _end_failed(self) -> None:
        """Have PyTorch's allocator know that a capture is over, though it failed.

        Before 2.13 PyTorch forgot to, and from then on no memory could be given back: every later
        capture in the process failed, and every batch that was short of memory. Inference thread.
        """
        pool = self._device.index, self._pool
        # Newer versions have ended the capture already, and refuse to do so again.
        with suppress(AttributeError, RuntimeError):
            torch._C._cuda_endAllocateToPool(*pool)
            torch._C._cuda_releasePool(*pool)

    def seconds(self, stream: torch.cuda.Stream, run: Callable[[], object]) -> float:
        """Return how long `run` takes, until the device is done. Inference thread."""
        times = []
        for _ in range(_TIMED_RUNS):
            stream.synchronize()
            started = perf_counter()
            run()
            stream.synchronize()
            times.append(perf_counter() - started)
        return min(times)


def gpu_of(device: torch.device) -> Gpu | None:
    """Return the GPU that `device` is; None for the CPU. Inference thread."""
    return Cuda(device) if device.type == "cuda" else None

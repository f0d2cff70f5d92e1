"""What a model asks of a GPU: streams, events, copies, and graphs of what ran on a stream.

All that differs between CUDA and a device of the tests is here. A graph is a recording: while it is
captured, kernels are noted and not run; a replay runs all of them by one call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from time import perf_counter
from typing import Any, Protocol, TypeVar
from warnings import catch_warnings, simplefilter
from weakref import finalize

import torch

from batcher.errors import ModelLoadError
from batcher.models.pytorch.streams import POOL, streams_of
from batcher.models.pytorch.tensors import pinned, to_host

Result = TypeVar("Result")

_TIMED_RUNS = 5
"""Runs of which the fastest counts: the others were held up by something else."""


class Event(Protocol):
    """A point in the work of a stream, behind all that was asked for before `record`."""

    def record(self, stream: Any) -> None:
        """Stand behind all work of `stream` so far. Inference thread."""

    def query(self) -> bool:
        """Return whether the work before this point is done. Inference thread."""

    def synchronize(self) -> None:
        """Wait until the work before this point is done. Inference thread."""


class Stream(Protocol):
    """Work of a device in the order in which it was asked for."""

    def wait_event(self, event: Any) -> None:
        """Do nothing more of this stream before `event`. Inference thread."""

    def synchronize(self) -> None:
        """Wait until all work so far is done. Inference thread."""


class Graph(Protocol):
    """Work that was recorded, and can be run again."""

    def replay(self) -> None:
        """Ask the current stream for the work. Inference thread."""


class Gpu(Protocol):
    """A device whose work runs beside the processor's."""

    def stream(self) -> Stream:
        """Return a stream in which no other model works. Inference thread."""

    def event(self) -> Event:
        """Return a new event. Inference thread."""

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Return a context in which work goes to `stream`. Inference thread."""

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Return memory of the host for so many bytes, which the device reads. Inference thread."""

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Have a pinned tensor copied by the current stream, and return the copy.

        Inference thread.
        """

    def to_host(self, value: Any) -> Any:
        """Have a tensor copied into pinned memory by the current stream, and return the copy.

        Values of other kinds stay as they are. Inference thread.
        """

    def capture(self, stream: Any, run: Callable[[], Result]) -> tuple[Graph, Result]:
        """Record what `run` asks of `stream`; return the graph, and where its results will lie.

        Raises:
            RuntimeError: `run` waits for the device, or does what else cannot be recorded.

        Inference thread.
        """

    def seconds(self, stream: Any, run: Callable[[], object]) -> float:
        """Return how long `run` takes, until the device is done. Inference thread."""


class Cuda:
    """A GPU by CUDA, for one model."""

    def __init__(self, device: torch.device) -> None:
        """Use `device`. Inference thread."""
        self._device = device
        self._pool: Any = None
        self._streams = streams_of(device)
        self._taken: list[Any] = []
        finalize(self, self._streams.give_back, self._taken).atexit = False

    def stream(self) -> torch.cuda.Stream:
        """Return a stream that is this object's as long as it lives. Inference thread."""
        stream: torch.cuda.Stream = self._streams.take()
        self._taken.append(stream)
        return stream

    def _refuse_shared(self, stream: torch.cuda.Stream) -> None:
        """Raise ModelLoadError if another model works in `stream`: a graph would record its work.

        Inference thread.
        """
        if self._streams.is_shared(stream):
            raise ModelLoadError(
                f"expected a stream for this model alone; got one that others use, since {POOL} "
                "streams of the device are taken"
            )

    def event(self) -> torch.cuda.Event:
        """Return a new event; who waits for it sleeps. Inference thread."""
        return torch.cuda.Event(blocking=True)

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Return memory of the host for so many bytes, which the device reads. Inference thread."""
        return pinned(nbytes)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Have a pinned tensor copied by the current stream. Inference thread."""
        return tensor.to(self._device, non_blocking=True)

    def to_host(self, value: Any) -> Any:
        """Have a tensor copied into pinned memory by the current stream. Inference thread."""
        return to_host(value)

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
        self._refuse_shared(stream)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other models may use the device meanwhile: what counts is what this thread does.
            with torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
                result = run()
        except BaseException:
            self._end_failed(stream)
            raise
        return graph, result

    def _end_failed(self, stream: torch.cuda.Stream) -> None:
        """Have all of PyTorch know that the capture of `stream` is over, though it failed.

        Before 2.13 PyTorch forgot to tell its allocator, and from then on no memory could be given
        back: every later capture in the process failed, and every batch that was short of memory.
        It forgot its random numbers too, of which every later one raised an error. An empty graph
        that is captured well ends that. Inference thread.
        """
        pool = self._device.index, self._pool
        # Newer versions have ended the capture already, and refuse to do so again.
        with suppress(AttributeError, RuntimeError):
            torch._C._cuda_endAllocateToPool(*pool)
            torch._C._cuda_releasePool(*pool)
        with suppress(RuntimeError), catch_warnings():
            simplefilter("ignore")  # PyTorch warns that the graph is empty
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                pass

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

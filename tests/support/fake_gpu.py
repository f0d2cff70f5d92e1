"""A GPU for tests: its memory is the host's, and it notes what is asked of it, in order.

A capture runs the module once and keeps where its results lie; a replay runs the module again and
writes into that memory, as the kernels of a graph do. As on CUDA, whatever waits for the device in
a capture, or makes a tensor whose size depends on values, is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from batcher.models.pytorch import module

Result = TypeVar("Result")

WAITING = {"item", "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}
"""Operators that bring a value to the host."""


class FakeStream:
    """A stream whose work is done at once."""

    def __init__(self, gpu: FakeGpu, name: str) -> None:
        """Belong to `gpu`."""
        self.name = name
        self._gpu = gpu

    def synchronize(self) -> None:
        """Note that the host waits."""
        self._gpu.events.append(f"wait for {self.name}")


class FakeGraph:
    """A module that runs again, into the memory of its first results."""

    def __init__(self, gpu: FakeGpu, run: Callable[[], Any], results: Any) -> None:
        """Remember `run`, and its `results`."""
        self._gpu = gpu
        self._run = run
        self._kept = _tensors(results)

    def replay(self) -> None:
        """Run the module again."""
        self._gpu.events.append(f"replay on {self._gpu.current}")
        for kept, new in zip(self._kept, _tensors(self._run()), strict=True):
            kept.copy_(new)


class FakeGpu:
    """A GPU whose memory is the host's.

    Attributes:
        events: what was asked of it, in order.
        current: name of the stream that work goes to.
        times: seconds that `seconds` returns, one after the other; then 1.0.
    """

    def __init__(self) -> None:
        """Start with nothing noted."""
        self.events: list[str] = []
        self.current = "default"
        self.times: list[float] = []
        self._streams = 0

    def stream(self) -> FakeStream:
        """Return a new stream."""
        self._streams += 1
        return FakeStream(self, f"stream {self._streams}")

    def on(self, stream: FakeStream) -> AbstractContextManager[None]:
        """Return a context in which work goes to `stream`."""
        return self._on(stream)

    @contextmanager
    def _on(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    def capture(self, stream: FakeStream, run: Callable[[], Result]) -> tuple[FakeGraph, Result]:
        """Run `run` once, without a wait for the device."""
        assert stream.name == self.current
        self.events.append("capture")
        with NoWaiting():  # type: ignore[no-untyped-call]  # the base class has no types
            results = run()
        return FakeGraph(self, run, results), results

    def seconds(self, stream: FakeStream, run: Callable[[], object]) -> float:
        """Run `run`, and return the next of `times`."""
        run()
        return self.times.pop(0) if self.times else 1.0


class NoWaiting(TorchDispatchMode):
    """Refuses operators that a stream which is captured refuses."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, unless it brings a value to the host."""
        if func.overloadpacket.__name__ in WAITING:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return func(*args, **(kwargs or {}))


def _tensors(results: Any) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(results) if isinstance(value, torch.Tensor)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU that models on the CPU run on."""
    fake = FakeGpu()
    monkeypatch.setattr(module, "gpu_of", lambda device: fake)
    monkeypatch.setattr(module, "PinnedStaging", lambda: module.FreshMemory())
    return fake

"""A GPU for tests: its memory is the host's, and it notes what is asked of it, in order.

Copies are as late as CUDA may do them: a copy that was asked of a stream happens when something
waits for that stream, and what it copies is what lies there then. So a buffer that is used again
too early gives wrong answers here every time, and not once in a while. Kernels run at once, after
what their stream waits for.

A capture runs the module once and keeps where its results lie; a replay runs the module again and
writes into that memory, as the kernels of a graph do. As on CUDA, whatever waits for the device in
a capture, or makes a tensor whose size depends on values, is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from weakref import finalize

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from batcher.models.pytorch import module

Result = TypeVar("Result")

WAITING = {"item", "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}
"""Operators that bring a value to the host."""


class FakeStream:
    """Work in the order in which it was asked for, none of which is done before somebody waits.

    Attributes:
        asked: number of pieces of work that were asked for.
        copies: number of copies among them; a stream without any runs kernels.
    """

    def __init__(self, gpu: FakeGpu, name: str) -> None:
        """Belong to `gpu`."""
        self.name = name
        self.asked = self.copies = 0
        self._gpu = gpu
        self._work: deque[Callable[[], object]] = deque()

    def ask(self, work: Callable[[], object]) -> None:
        """Do `work` later."""
        self.asked += 1
        self._work.append(work)

    def wait_event(self, event: FakeEvent) -> None:
        """Do nothing more before `event`."""
        self._gpu.events.append(f"{self.name} waits for {event.stream.name}")
        self.ask(event.come)

    def synchronize(self) -> None:
        """Note that the host waits, and do all work."""
        self._gpu.events.append(f"wait for {self.name}")
        self.run(self.asked)

    def run(self, number: int) -> None:
        """Do the first `number` pieces of all work."""
        while self.asked - len(self._work) < number:
            self._work.popleft()()

    def has_run(self, number: int) -> bool:
        """Return whether the first `number` pieces of all work are done."""
        return self.asked - len(self._work) >= number


class FakeEvent:
    """A point in the work of a stream."""

    def __init__(self, gpu: FakeGpu) -> None:
        """Belong to `gpu`."""
        self._gpu = gpu
        self.stream: FakeStream
        self._number = 0

    def record(self, stream: FakeStream) -> None:
        """Stand behind all work of `stream` so far."""
        self.stream, self._number = stream, stream.asked

    def query(self) -> bool:
        """Return whether the work is done."""
        return self.stream.has_run(self._number)

    def come(self) -> None:
        """Do the work before this point."""
        self.stream.run(self._number)

    def synchronize(self) -> None:
        """Note that the host waits for this point."""
        self._gpu.events.append(f"wait for a point of {self.stream.name}")
        self.come()


class FakeGraph:
    """A module that runs again, into the memory of its first results."""

    def __init__(self, gpu: FakeGpu, run: Callable[[], Any], results: Any) -> None:
        """Remember `run`, and its `results`."""
        self._gpu = gpu
        self._run = run
        self._kept = _tensors(results)

    def replay(self) -> None:
        """Run the module again."""
        self._gpu.events.append(f"replay on {self._gpu.current.name}")
        for kept, new in zip(self._kept, _tensors(self._run()), strict=True):
            kept.copy_(new)


class FakeGpu:
    """A GPU whose memory is the host's.

    Attributes:
        events: what was asked of it, in order.
        current: the stream that work goes to.
        times: seconds that `seconds` returns, one after the other; then 1.0.
        pinned_bytes: how much memory was pinned so far, for each time.
    """

    def __init__(self) -> None:
        """Start with nothing noted."""
        self.events: list[str] = []
        self.current = FakeStream(self, "default")
        self.times: list[float] = []
        self.pinned_bytes: list[int] = []
        self._streams = 0

    def stream(self) -> FakeStream:
        """Return a new stream."""
        self._streams += 1
        return FakeStream(self, f"stream {self._streams}")

    def event(self) -> FakeEvent:
        """Return a new event."""
        return FakeEvent(self)

    def on(self, stream: FakeStream) -> AbstractContextManager[None]:
        """Return a context in which work goes to `stream`."""
        return self._on(stream)

    @contextmanager
    def _on(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        if not stream.copies:  # kernels may follow
            stream.run(stream.asked)
        try:
            yield
        finally:
            self.current = before

    def pinned(self, nbytes: int) -> torch.Tensor:
        """Return memory for so many bytes."""
        self.pinned_bytes.append(nbytes)
        return torch.empty(nbytes, dtype=torch.uint8)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return memory into which `tensor` is copied later."""
        return self._later("there", tensor)

    def to_host(self, value: Any) -> Any:
        """Return memory into which a tensor is copied later."""
        return self._later("home", value) if isinstance(value, torch.Tensor) else value

    def _later(self, way: str, tensor: torch.Tensor) -> torch.Tensor:
        self.events.append(f"copy {way} on {self.current.name}")
        made = torch.full_like(tensor, 99)  # what a kernel that comes too early reads
        self.current.copies += 1
        # A device knows nothing of PyTorch's modes.
        self.current.ask(torch.inference_mode()(lambda: made.copy_(tensor)))
        return made

    def capture(self, stream: FakeStream, run: Callable[[], Result]) -> tuple[FakeGraph, Result]:
        """Run `run` once, without a wait for the device."""
        assert stream is self.current
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


def failing_copies(gpu: FakeGpu) -> Callable[[Any], torch.Tensor]:
    """Return a `to_host` whose second call fails; `gpu` notes when the first copy is freed."""
    gpu.events.clear()

    def to_host(value: torch.Tensor) -> torch.Tensor:
        if gpu.events and gpu.events[-1] == "copy begins":
            gpu.events.append("copies fail")
            raise RuntimeError("no memory can be pinned")
        gpu.events.append("copy begins")
        made = torch.empty_like(value)
        finalize(made, gpu.events.append, "memory is freed")
        return made

    return to_host


def _tensors(results: Any) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(results) if isinstance(value, torch.Tensor)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """A GPU that models on the CPU run on."""
    fake = FakeGpu()
    monkeypatch.setattr(module, "gpu_of", lambda device: fake)
    monkeypatch.setattr(module, "PinnedStaging", lambda: module.FreshMemory())
    return fake

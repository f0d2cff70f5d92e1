"""`memory_limit`: how much of a GPU's memory one instance of a model may take.

    before the load     is as much free on the device? If not, the log says so: a limit is the most
                        that a model may take, not what it takes, so the load goes on
    load, capture
    warm-up             what the load alone needed is given back first, so that what is held at the
                        end is what the model holds while it serves
    after all of that   held more than the limit? Then the load fails, and the memory is free again

What is held is told apart by streams, as PyTorch's allocator keeps it. Other models share the
process and run batches meanwhile, each in streams of its own that were there before. A stream that
an earlier model has left may be the next one's: there the growth counts. A class with `predict`
computes in the default stream, which it may share with others: there the growth counts.
So what another model does can hide a part of what this one takes, and seldom adds to it.

In a process of its own the allocator itself keeps a model within the limit: a batch that does not
fit is out of memory, as it is on a device that is full. The limit on a thread is held against the
model once, after its load.

The other way, a pool of memory for each model, was refused: a graph has a pool already, and PyTorch
can have memory come from one pool only.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from importlib import import_module
from typing import Final, Protocol

from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.protocol import Progress

_DEFAULT_STREAM: Final = 0
"""What PyTorch calls the stream of a device in which all is done that names no other."""

_UNITS: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


class DeviceMemory(Protocol):
    """The memory of one device, as far as this process sees it. Inference thread."""

    def room(self) -> tuple[int, int]:
        """Return the bytes of the device that nobody has taken, and all of them."""

    def held(self) -> Mapping[int, int]:
        """Return the bytes that this process has taken, by the stream they are kept for."""

    def free_streams(self) -> Set[int]:
        """Return the streams that a model had and that nobody works in now."""

    def give_back(self) -> None:
        """Give back what nothing uses now, that of dead objects included."""

    def enforce(self, limit: int) -> None:
        """Have this process never take more than `limit` bytes."""


class MemoryLimit:
    """The limit of one model while it loads. Inference thread."""

    def __init__(self, settings: ModelSettings, is_alone: bool) -> None:
        """Look at nothing yet; `is_alone` says that this process is the model's own."""
        self._settings = settings
        self._limit = settings.memory_limit or 0
        self._is_alone = is_alone
        self._device = ""
        self._memory: DeviceMemory | None = None
        self._before: Mapping[int, int] = {}
        self._free: Set[int] = frozenset()

    def begin(self, form: str, device: str, progress: Progress) -> None:
        """Look at `device` before a model of the format `form` is loaded."""
        if self._settings.memory_limit is None:
            return
        self._device, self._memory = device, _memory_of(form, device)
        if self._memory is None:
            return
        if self._is_alone:
            self._memory.enforce(self._limit)
        self._before, self._free = self._memory.held(), self._memory.free_streams()
        free, total = self._memory.room()
        if free < self._limit:
            progress(
                f"note: {self._device} has {_size(free)} of {_size(total)} free, less than the "
                f"memory_limit of {_size(self._limit)}. The load fails if the model needs more"
            )

    def loaded(self) -> None:
        """Hear that the model is loaded and captured, and warm-up comes next."""
        if self._memory is not None:
            self._memory.give_back()

    def excess(self, native_bytes: int) -> str:
        """Return in words that the model takes too much, and what to do; empty if it does not.

        `native_bytes` are weights that lie beside the memory of PyTorch.
        """
        if self._memory is None:
            return ""
        before = self._before
        took = native_bytes + sum(
            max(0, nbytes - before.get(stream, 0))
            for stream, nbytes in self._memory.held().items()
            if stream == _DEFAULT_STREAM or stream not in before or stream in self._free
        )
        if took <= self._limit:
            return ""
        return (
            f"expected to take at most the memory_limit of {_size(self._limit)} on {self._device}; "
            f"took {_size(took)}, loaded and warmed up{advice(self._settings)}"
        )

    def refuse(self, excess: str) -> None:
        """Give back what the model took, of which nothing is left; raise ModelLoadError."""
        assert self._memory is not None
        self._memory.give_back()
        raise ModelLoadError(excess)


def _memory_of(form: str, device: str) -> DeviceMemory | None:
    """Return the memory of `device`; None if there is nothing to look at. Inference thread."""
    # onnxruntime has memory of its own, and is told the limit.
    if device == "cpu" or form == "onnx":
        return None
    # PyTorch is there by now.
    memory: DeviceMemory = import_module("batcher.models.pytorch.cuda_memory").CudaMemory(device)
    return memory


def advice(settings: ModelSettings) -> str:
    """Return what to do where a model does not fit into its limit. Any thread."""
    mends = []
    if settings.max_batch_size > 1:
        mends.append(f"a max_batch_size below {settings.max_batch_size}")
    if settings.dtype is None:
        mends.append("`dtype: bf16`")
    if settings.cuda_graphs:
        mends.append("`cuda_graphs: false`")
    return f". Set {', '.join([*mends, 'or a higher memory_limit'])}"


def _size(nbytes: int) -> str:
    """Return a number of bytes as people read it. Any thread."""
    for unit, factor in _UNITS:
        if nbytes >= factor:
            return f"{nbytes / factor:.4g} {unit}"
    return f"{nbytes} bytes"

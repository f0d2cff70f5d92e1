"""`overlap_copies`: one batch computes while the next comes to the device and the last goes home.

Three streams, each in its own order; an arrow is an event that one stream waits for:

    to device   inputs n+1      inputs n+2
                    └──────┐        └──────┐
    compute     batch n  batch n+1     batch n+2
                    └──────────┐  └────────────┐
    to host                 outputs n      outputs n+1

The host waits for two events alone: that the outputs of a batch are home, and, before it writes the
inputs of a batch, that those of `SLOTS` batches ago have left their pinned memory. Nothing waits
for the whole device. After a batch that failed half-way the host waits for both later streams.

Inputs lie in a ring of pinned buffers, one set of buffers a slot, as large as the largest batch so
far. Outputs come home into fresh pinned memory, which PyTorch keeps for later batches once nobody
reads it any more: answers are written from there. Memory of the device comes from PyTorch's cache,
and a batch holds on to its own until its outputs are home.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
import torch

from batcher.core.spec import Array
from batcher.models.pytorch.gpu import Event, Gpu, Stream
from batcher.models.pytorch.tensors import copy_each

SLOTS = 2
"""Batches that a worker holds: one computes, the next is put together."""

Tensors = dict[str, torch.Tensor]


class _Slot:
    """Pinned memory for the inputs of one batch.

    Attributes:
        left: the event that the last inputs have left this memory; None before the first.
    """

    def __init__(self) -> None:
        self.left: Event | None = None
        self.buffers: Tensors = {}


class Lanes:
    """Takes batches to a device and their outputs home. Inference thread."""

    def __init__(self, gpu: Gpu, compute: Stream) -> None:
        """Use streams of `gpu` beside `compute`, on which batches run."""
        self._gpu = gpu
        self._compute = compute
        self._there, self._home = gpu.stream(), gpu.stream()
        self._slots = [_Slot() for _ in range(SLOTS)]

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return memory of the next slot for the input `name`. Inference thread."""
        slot, nbytes = self._slots[0], prod(shape) * dtype.itemsize
        if slot.left is not None:
            slot.left.synchronize()
            slot.left = None
        buffer = slot.buffers.get(name)
        if buffer is None or buffer.numel() < nbytes:
            buffer = slot.buffers[name] = self._gpu.pinned(nbytes)
        view: Array = buffer.numpy()[:nbytes].view(dtype).reshape(shape)
        return view

    def send(self, inputs: Tensors) -> Tensors:
        """Return `inputs`, which lie in the next slot, on the device. Inference thread.

        They are there when the compute stream comes to what is asked of it next.
        """
        slot = self._slots.pop(0)
        self._slots.append(slot)
        with self._gpu.on(self._there):
            sent = {name: self._gpu.to_device(tensor) for name, tensor in inputs.items()}
        slot.left = self._mark(self._there)
        self._compute.wait_event(slot.left)
        return sent

    def fetch(self, outputs: Mapping[str, Any]) -> tuple[dict[str, Any], Event]:
        """Return memory of the host for `outputs` of the compute stream, and when it is filled.

        Inference thread.
        """
        self._home.wait_event(self._mark(self._compute))
        # After an error the traceback holds these until the caller has come to `wait`.
        on_host: dict[str, Any] = {}
        with self._gpu.on(self._home):
            copy_each(outputs, self._gpu.to_host, on_host)
        return on_host, self._mark(self._home)

    def wait(self) -> None:
        """Wait until all batches so far are computed and home, or the device is lost.

        Inference thread.
        """
        with suppress(RuntimeError):  # whoever failed says so
            self._compute.synchronize()
            self._home.synchronize()

    def _mark(self, stream: Stream) -> Event:
        """Return the event that all work of `stream` so far is done."""
        event = self._gpu.event()
        event.record(stream)
        return event

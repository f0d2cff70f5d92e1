"""A module whose batches are copied beside its computing: `overlap_copies`, by `Lanes`.

The next batch may compute while the outputs of a batch go home. A graph, and some modules, write
every batch into the same memory. So what goes home is a copy, made on the device by the stream that
computes: in its order, before the next batch, and in microseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from batcher.core.spec import Array
from batcher.models.output_arrays import output_arrays
from batcher.models.protocol import Arrays
from batcher.models.pytorch.gpu import Event, Gpu, Stream
from batcher.models.pytorch.lanes import Lanes
from batcher.models.result_names import named_outputs

_HOST = torch.device("cpu")


class OverlappedModel:
    """A loaded `TorchModule` on a GPU; a batch may begin before the one before it has ended.

    Attributes:
        overlaps: always.
    """

    overlaps = True

    def __init__(self, model: Any, gpu: Gpu, stream: Stream) -> None:
        """Run `model`, which computes on `stream` of `gpu`. Inference thread."""
        self._model = model
        self._gpu = gpu
        self._stream = stream
        self._lanes = Lanes(gpu, stream)

    def __getattr__(self, name: str) -> Any:
        """Return what the model itself has. Any thread."""
        return getattr(self._model, name)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return pinned memory for the input `name` of the next batch. Inference thread."""
        return self._lanes.allocate(name, shape, dtype)

    def begin(self, inputs: Arrays) -> _Running:
        """Ask the device for one batch. Inference thread."""
        with self._model.batch_mode():
            sent = self._lanes.send(self._model.tensors(inputs, _HOST))
            try:
                outputs, left_out, copies = self._computed(inputs, sent)
                on_host, home = self._lanes.fetch(outputs)
            except BaseException:
                # Else the next inputs could be copied to where kernels still read these.
                self._lanes.wait()
                raise
        self._model.count_copies(inputs, outputs)
        return _Running(self._model, (sent, outputs), on_host, left_out, home, copies)

    def _computed(
        self, inputs: Arrays, sent: dict[str, torch.Tensor]
    ) -> tuple[dict[str, Any], Any, dict[str, torch.Tensor]]:
        """Ask for what the model makes of `sent`, and of those `inputs` that lie on the device.

        Return where that will lie, what it left out, and what the device keeps. Inference thread.
        """
        kept, is_raw = self._model.device_rows, self._model.postprocess is not None
        with self._gpu.on(self._stream):
            if kept.placed:
                sent = kept.joined(inputs, sent)
            result = pytree.tree_map_only(torch.Tensor, torch.clone, self._model.call(sent))
            outputs, left_out = named_outputs(result, self._model.spec, is_raw)
            return outputs, left_out, kept.copies(outputs, own=True)

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch to its end. Inference thread."""
        return self.begin(inputs).result()


class _Running:
    """A batch on its way; holds on to its memory of the device."""

    def __init__(
        self,
        model: Any,
        held: object,
        on_host: dict[str, Any],
        left_out: Any,
        home: Event,
        copies: dict[str, torch.Tensor],
    ) -> None:
        """Wait for nothing yet: `on_host` is filled once `home` has come; `copies` stay there."""
        self._model = model
        self._held = held
        self._on_host = on_host
        self._left_out = left_out
        self._home = home
        self._copies = copies

    def is_done(self) -> bool:
        """Return whether the outputs are home. Inference thread."""
        return self._home.query()

    def result(self) -> dict[str, Array]:
        """Wait for the outputs, and return them. Inference thread."""
        self._home.synchronize()
        self._held = None
        is_raw = self._model.postprocess is not None
        arrays = output_arrays(self._on_host, self._model.spec, self._left_out, is_raw)
        copies, self._copies = self._copies, {}
        self._model.device_rows.note(arrays, copies)
        return arrays

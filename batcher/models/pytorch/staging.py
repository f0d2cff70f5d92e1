"""The buffers in which a batch's inputs are put together.

| device | buffer | why |
|---|---|---|
| CPU | fresh memory for every batch | outputs may lie in it |
| CUDA | one pinned buffer an input, kept | the rows are copied anyway |

On the CPU a model may return its input as its output: an echo, a view, a slice. A buffer that was
used again would change answers that are still being written. Finding out whether outputs lie in the
buffer would cost more than fresh memory.

To CUDA the rows are copied, and the copy has ended when `predict` returns. So one buffer serves
every batch. Pinned memory makes the copy fast and asynchronous; to pin memory is slow, and must not
happen per batch.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from batcher.core.spec import Array
from batcher.models.pytorch.tensors import pinned


class Staging(Protocol):
    """Gives buffers for the inputs of a batch."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a writable, contiguous buffer of that shape and dtype for the input `name`.

        Inference thread.
        """


class PinnedStaging:
    """One pinned buffer an input, as large as the largest batch so far, for every batch."""

    def __init__(self) -> None:
        """Start without buffers. Inference thread."""
        self._buffers: dict[str, torch.Tensor] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the beginning of the input's buffer. Inference thread."""
        nbytes = prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < nbytes:
            buffer = self._buffers[name] = pinned(nbytes)
        view: Array = buffer.numpy()[:nbytes].view(dtype).reshape(shape)
        return view

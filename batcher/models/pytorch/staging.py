"""Where a batch's inputs are put together.

Fresh memory for the CPU, pinned memory that is kept for CUDA.

On the CPU a model may hand its input back as its output (an echo, a view, a slice), so a buffer
that was used again would change answers that are still being written; fresh memory costs less than
finding that out. To CUDA the rows are copied anyway and the copy has ended when `predict` returns,
so one pinned buffer an input serves every batch; pinning is slow and must not happen per batch.
"""

from __future__ import annotations

from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from batcher.core.spec import Array


class Staging(Protocol):
    """Gives buffers for collation."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a writable, contiguous buffer of that shape and dtype for the input `name`.

        Inference thread.
        """


class HostStaging:
    """Fresh memory for every batch."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return new memory. Inference thread."""
        return np.empty(shape, dtype)


class PinnedStaging:
    """One pinned buffer an input, grown to the largest batch seen, then used for every batch."""

    def __init__(self) -> None:
        """Start without buffers."""
        self._arenas: dict[str, torch.Tensor] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the beginning of the input's buffer. Inference thread."""
        needed = prod(shape) * dtype.itemsize
        arena = self._arenas.get(name)
        if arena is None or arena.numel() < needed:
            arena = self._arenas[name] = torch.empty(needed, dtype=torch.uint8, pin_memory=True)
        view: Array = arena.numpy()[:needed].view(dtype).reshape(shape)
        return view

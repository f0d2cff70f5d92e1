"""The memory of a GPU as PyTorch's allocator sees it.

What libraries take beside the allocator is not seen: the context of CUDA, some hundred MB for each
process, and the weights in a package of `compile: aoti`, whose size the model itself tells.
"""

from __future__ import annotations

import gc
from collections import Counter

import torch

from batcher.models.pytorch.streams import streams_of


class CudaMemory:
    """The memory of one GPU; as `DeviceMemory`. Inference thread."""

    def __init__(self, device: str) -> None:
        """Look at `device`, such as `cuda:0`."""
        self._device = torch.device(device)

    def room(self) -> tuple[int, int]:
        """Return the bytes of the device that nobody has taken, and all of them."""
        free, total = torch.cuda.mem_get_info(self._device)
        return free, total

    def held(self) -> Counter[int]:
        """Return the bytes that this process has taken, by the stream they are kept for."""
        held: Counter[int] = Counter()
        for segment in torch.cuda.memory_snapshot():
            if segment["device"] == self._device.index:
                held[segment["stream"]] += segment["total_size"]
        return held

    def free_streams(self) -> set[int]:
        """Return the streams that a model had and that nobody works in now."""
        return streams_of(self._device).free()

    def give_back(self) -> None:
        """Give back what nothing uses now, that of dead objects included."""
        gc.collect()  # modules of PyTorch hold on to each other
        torch.cuda.empty_cache()

    def enforce(self, limit: int) -> None:
        """Have this process never take more than `limit` bytes by PyTorch's allocator."""
        total = torch.cuda.get_device_properties(self._device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), self._device)

"""The streams of a GPU: no two models that live compute in the same one, if there are enough.

PyTorch has `POOL` streams for each device and hands them out in a circle. So the 33rd that a
process asks for is the first again, though a model may still compute in it: a graph that another
model captured there would record the work of both. And libraries keep memory for each stream that
was ever used (cuBLAS 32 MiB on some cards), so a new stream with every load takes more and more.

Here a stream goes back when the model that took it is gone, and the first one that is free is
handed out again. Where none is free models share one; they then have no graphs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

import torch

POOL: Final = 32
"""Streams that PyTorch has for a device, of those with the usual priority."""


class Streams:
    """The streams of one device. Any thread."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Have streams made by `make`, which returns one of `POOL`, each in its turn."""
        self._make = make
        self._made: dict[int, Any] = {}
        self._holders: Counter[int] = Counter()
        # A collection may give streams back while this thread holds the lock: no lock for that.
        self._returned: deque[int] = deque()
        self._lock = Lock()

    def take(self) -> Any:
        """Return a stream that nobody holds; if there is none, the one that the fewest hold."""
        with self._lock:
            self._count_returned()
            for _ in range(POOL):
                if any(not self._holders[key] for key in self._made):
                    break
                stream = self._make()
                self._made.setdefault(stream.cuda_stream, stream)
            key = min(self._made, key=self._holders.__getitem__)
            self._holders[key] += 1
            return self._made[key]

    def give_back(self, taken: list[Any]) -> None:
        """Hear that a holder of the streams `taken` is gone."""
        self._returned.extend([stream.cuda_stream for stream in taken])

    def is_shared(self, stream: Any) -> bool:
        """Return whether more than one holds `stream`."""
        with self._lock:
            self._count_returned()
            return self._holders[stream.cuda_stream] > 1

    def free(self) -> set[int]:
        """Return CUDA's names of the streams that were taken once and that nobody holds now."""
        with self._lock:
            self._count_returned()
            return {key for key in self._made if not self._holders[key]}

    def _count_returned(self) -> None:
        """Let go of what came back. The lock is held."""
        while self._returned:
            self._holders[self._returned.popleft()] -= 1


_STREAMS: Final[dict[int, Streams]] = {}


def streams_of(device: torch.device) -> Streams:
    """Return the streams of `device`, which has an index; the same object each time. Any thread."""
    index = device.index or 0
    return _STREAMS.setdefault(index, Streams(lambda: torch.cuda.Stream(index)))

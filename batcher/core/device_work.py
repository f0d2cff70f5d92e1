"""What batches asked of a GPU, counted where they run, and handed over with their outcomes."""

from __future__ import annotations

from typing import NamedTuple


class DeviceWork(NamedTuple):
    """What one batch or a few asked of a device.

    Attributes:
        graph_replays: times that a CUDA graph was replayed.
        bytes_to_device: bytes of inputs that were copied to the device.
        bytes_to_host: bytes of outputs that were copied back.
        bytes_on_device: bytes of inputs that an earlier model had left on the device.
    """

    graph_replays: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    bytes_on_device: int = 0


NOTHING = DeviceWork()


class WorkCounts:
    """Counts of one model since they were taken last; attributes as in DeviceWork.

    Inference thread.
    """

    __slots__ = DeviceWork._fields

    def __init__(self) -> None:
        """Start at zero."""
        self._restart()

    def _restart(self) -> None:
        self.graph_replays = 0
        self.bytes_to_device = 0
        self.bytes_to_host = 0
        self.bytes_on_device = 0

    def take(self) -> DeviceWork | None:
        """Return the counts, None for nothing at all, and start at zero."""
        copied = self.bytes_to_device, self.bytes_to_host, self.bytes_on_device
        work = DeviceWork(self.graph_replays, *copied)
        if work == NOTHING:
            return None
        self._restart()
        return work

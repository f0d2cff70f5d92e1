"""Memory and use of the machine's GPUs, read every few seconds where the extra `gpu` is installed.

A scrape gets the last reading, so that it waits for no driver. While a reading is under way no
other begins, and readings that became too old are shown no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from math import inf
from typing import Protocol, TypeVar

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.errors import Draining
from batcher.serving.nvml import DeviceReading, NoDevices, Nvml

READ_EVERY_S = 5.0
"""Seconds between two readings: a driver takes a millisecond or more for each of its devices."""

FORGET_S = 30.0
"""Seconds without an answer of the driver after which the last readings are forgotten."""

_LABELS = ("device", "name", "uuid")

_log = Logger()

Result = TypeVar("Result")


class Pool(Protocol):
    """Runs functions on threads."""

    def run(self, nbytes: int, deadline: float, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function`, which holds on to `nbytes` bytes, by `deadline`. Reactor thread."""


class DeviceMetrics:
    """The last readings of all GPUs. Reactor thread.

    Attributes:
        readings: the last of each device that has answered lately.
    """

    def __init__(self) -> None:
        """Read nothing yet."""
        self.readings: Sequence[DeviceReading] = ()
        self._read = Nvml().read
        self._next = -inf
        self._reading = False
        self._is_over = False

    def note(self, now: float, pool: Pool) -> None:
        """Read the devices in `pool` if it is time to, at `now` in seconds."""
        if self._is_over or now < self._next:
            return
        if self._next == -inf and find_spec("pynvml") is None:
            self._is_over = True
            return
        if self._reading:
            if now >= self._next + FORGET_S:
                self.readings = ()
            return
        self._reading, self._next = True, now + READ_EVERY_S
        reading = maybeDeferred(pool.run, 0, inf, self._read)
        reading.addCallbacks(self._take, self._give_up)

    def _take(self, readings: Sequence[DeviceReading]) -> None:
        """Show `readings` from now on."""
        self._reading = False
        self.readings = readings

    def _give_up(self, failure: Failure) -> None:
        """Read no more: there is no driver, or the server ends."""
        self._is_over, self.readings = True, ()
        if failure.check(NoDevices):
            _log.info(
                "no metrics of GPUs: expected NVIDIA's driver, since nvidia-ml-py is installed; "
                "got: {reason}",
                reason=failure.getErrorMessage(),
            )
        elif not failure.check(Draining):
            _log.failure("no more metrics of GPUs", failure)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; without samples where no device was read."""
        text = "Memory of a GPU that is taken, by this server and by others."
        used = GaugeMetricFamily("batcher_device_memory_used_bytes", text, labels=_LABELS)
        text = "Memory of a GPU."
        total = GaugeMetricFamily("batcher_device_memory_total_bytes", text, labels=_LABELS)
        text = "Share of the last moments in which a GPU ran anything, 0 to 1."
        busy = GaugeMetricFamily("batcher_device_utilization_ratio", text, labels=_LABELS)
        for each in self.readings:
            labels = (each.number, each.name, each.unique)
            used.add_metric(labels, each.used_bytes)
            total.add_metric(labels, each.total_bytes)
            if each.busy is not None:
                busy.add_metric(labels, each.busy)
        yield from (used, total, busy)

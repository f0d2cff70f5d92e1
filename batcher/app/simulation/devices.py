"""Simulated workers: each runs one batch at a time, and a batch takes what the cost model says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from twisted.internet.defer import Deferred, succeed

from batcher.app.simulation.costs import BatchCost, Noise
from batcher.app.simulation.events import Events
from batcher.batching.batch import Batch
from batcher.batching.worker import ConditionListener, Deliver, Outcome
from batcher.core.padding import RaggedGroup
from batcher.core.spec import Array
from batcher.models.protocol import LoadedModel

Cross = Callable[[Callable[[Batch], None], Batch], object]
"""Has the loop call a function with a batch, soon."""

NO_ROWS: dict[str, Array] = {}


class SimulatedDevice:
    """A worker without a model, on simulated time.

    Attributes:
        busy: seconds for which batches ran.
        batches: batches that ran.
        idle_since: time in seconds at which the last batch ended; infinity while one runs.
        last_end: time in seconds at which the last batch ended, minus infinity before that.
        last_begin: time in seconds at which the last batch began, likewise.
        cost: mean seconds of a batch; may be replaced while the device runs.
    """

    _deliver: Deliver

    def __init__(self, events: Events, cost: BatchCost, noise: Noise, cross: Cross) -> None:
        """Take the seconds of a batch from `cost`, times a factor of `noise`."""
        self.busy, self.batches = 0.0, 0
        self.idle_since = self.last_end = self.last_begin = -inf
        self.cost = cost
        self._events = events
        self._noise = noise
        self._cross = cross
        self._waiting: deque[tuple[Batch, float]] = deque()
        self._outcomes: deque[Outcome] = deque()

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Be ready at once. Reactor thread."""
        self._deliver = deliver
        return succeed(LoadedModel())

    def do(self, batch: Batch) -> None:
        """Run `batch` after the batches before it. Reactor thread."""
        if self.idle_since == inf:
            self._waiting.append((batch, self._events.now))
        else:
            self._begin(batch, 0.0)

    def linger(self) -> None:
        """Wait for nothing. Reactor thread."""

    def let_begin(self) -> None:
        """Wait for nothing. Reactor thread."""

    def quit(self) -> Deferred[None]:
        """Take no more batches. Reactor thread."""
        return succeed(None)

    def _begin(self, batch: Batch, waited: float) -> None:
        self.idle_since, self.last_begin = inf, self._events.now
        group = batch.group
        elements = group.elements if isinstance(group, RaggedGroup) else 0
        seconds = self.cost.seconds(batch.rows, elements) * self._noise.factor()
        self.busy += seconds
        self.batches += 1
        self._outcomes.append(Outcome([NO_ROWS] * len(batch.parts), None, waited, seconds))
        self._events.at(self._events.now + seconds, self._end, batch)

    def _end(self, batch: Batch) -> None:
        now = self.idle_since = self.last_end = self._events.now
        self._cross(self._back, batch)
        if self._waiting:
            following, handed_at = self._waiting.popleft()
            self._begin(following, now - handed_at)

    def _back(self, batch: Batch) -> None:
        self._deliver(batch, self._outcomes.popleft())


class Watch:
    """What comparisons know of all devices, and real policies do not."""

    def __init__(self, devices: Sequence[SimulatedDevice]) -> None:
        """Watch `devices`."""
        self._devices = devices

    @property
    def idle_since(self) -> float:
        """Time since when the device that takes the next batch has had nothing to do."""
        return min(device.idle_since for device in self._devices)

    @property
    def last_end(self) -> float:
        """Time at which the last batch of any device ended."""
        return max(device.last_end for device in self._devices)

    @property
    def last_begin(self) -> float:
        """Time at which the last batch of any device began."""
        return max(device.last_begin for device in self._devices)

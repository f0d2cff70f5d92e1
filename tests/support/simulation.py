"""A device and its clients in simulated time: no thread, no waiting, an hour in a moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from batcher.models.loading import CheckedModel, Loaded
from batcher.scheduling.batch import Batch
from batcher.workers.protocol import Changed, Condition, Deliver
from batcher.workers.running import run_batch


def advance_to_next(clock: Clock) -> float:
    """Let `clock` jump to its next call and make it; return the time."""
    clock.rightNow = max(clock.rightNow, clock.getDelayedCalls()[0].getTime())
    clock.advance(0)
    return clock.rightNow


def ignore_changes(condition: Condition, reason: str) -> None:
    """Do nothing: a simulated device is always alive."""


class SimulatedDevice:
    """A worker whose batches take `seconds(rows)` on the clock, one after the other.

    Attributes:
        sizes: rows of each batch, in the order they were started.
        busy: seconds that it computed.
        idle: seconds that it stood idle between two batches.
    """

    def __init__(self, model: CheckedModel, clock: Clock, seconds: Callable[[int], float], crossing: float = 0.0) -> None:
        """Run batches on `model`; a result reaches the loop `crossing` seconds after it is there."""
        self.sizes: list[int] = []
        self.busy = 0.0
        self.idle = 0.0
        self._model = model
        self._clock = clock
        self._seconds = seconds
        self._crossing = crossing
        self._waiting: deque[tuple[Batch, float]] = deque()
        self._computing = False
        self._ended_at: float | None = None
        self._deliver: Deliver

    def start(self, deliver: Deliver, changed: Changed) -> Deferred[Loaded]:
        """Be ready at once."""
        self._deliver = deliver
        return succeed(self._model.loaded())

    def do(self, batch: Batch) -> None:
        """Run `batch` after those before it."""
        self._waiting.append((batch, self._clock.seconds()))
        self._compute_next()

    def linger(self) -> None:
        pass

    def let_begin(self) -> None:
        """Wait for nothing."""

    def quit(self) -> Deferred[None]:
        """End at once."""
        return succeed(None)

    def _compute_next(self) -> None:
        if self._computing or not self._waiting:
            return
        batch, handed_at = self._waiting.popleft()
        now = self._clock.seconds()
        if self._ended_at is not None:
            self.idle += now - self._ended_at
        self._computing = True
        self.sizes.append(batch.rows)
        self.busy += self._seconds(batch.rows)
        self._clock.callLater(self._seconds(batch.rows), self._computed, batch, handed_at)

    def _computed(self, batch: Batch, handed_at: float) -> None:
        self._computing = False
        self._ended_at = self._clock.seconds()
        outcome = run_batch(self._model, batch, handed_at, self._clock.seconds)._replace(compute=self._seconds(batch.rows))
        if self._crossing:
            self._compute_next()
            self._clock.callLater(self._crossing, self._deliver, batch, outcome)
        else:
            self._deliver(batch, outcome)
            self._compute_next()

"""A worker without a thread: a test or a simulation runs its batches one by one."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, ConditionListener, Deliver, Outcome
from batcher.errors import WorkerLost
from batcher.models.checked import CheckedModel
from batcher.models.protocol import LoadedModel
from batcher.workers.run_batch import run_batch


class MemoryWorker:
    """Holds batches until `perform` runs the next one, on the caller's stack.

    Attributes:
        batches: batches that wait, oldest first, each with the time at which it was handed over.
        quitting: whether `quit` was called.
    """

    _deliver: Deliver
    _changed: ConditionListener

    def __init__(self, model: CheckedModel, clock: IReactorTime) -> None:
        """Run batches on `model`; `clock` says how long they waited. Reactor thread."""
        self.batches: deque[tuple[Batch, float]] = deque()
        self.quitting = False
        self._model = model
        self._clock = clock

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Be ready at once. Reactor thread."""
        self._deliver = deliver
        self._changed = changed
        return succeed(self._model.loaded())

    def do(self, batch: Batch) -> None:
        """Hold `batch`. Reactor thread."""
        if self.quitting:
            raise RuntimeError("the worker takes no more batches")
        self.batches.append((batch, self._clock.seconds()))

    def linger(self) -> None:
        """Wait for nothing: `perform` runs batches. Reactor thread."""

    def let_begin(self) -> None:
        """Wait for nothing. Reactor thread."""

    def quit(self) -> Deferred[None]:
        """Take no more batches. Reactor thread."""
        self.quitting = True
        return succeed(None)

    def perform(self) -> Batch:
        """Run and deliver the oldest batch, and return it. Reactor thread."""
        batch, handed_at = self.batches.popleft()
        self._deliver(batch, run_batch(self._model, batch, handed_at, self._clock.seconds))
        return batch

    def lose(self, condition: Condition, reason: str) -> None:
        """Take no batches until `revive`, and deliver those held as lost; the first has begun.

        Reactor thread.
        """
        held, self.batches = self.batches, deque()
        self._changed(condition, reason)
        for number, (batch, _) in enumerate(held):
            self._deliver(batch, Outcome([], WorkerLost(reason, begun=number == 0), 0.0, 0.0))

    def revive(self) -> None:
        """Take batches again. Reactor thread."""
        self._changed(Condition.ALIVE, "")

"""The batches that a worker was handed and has not delivered, the oldest under a watchdog."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from batcher.batching.batch import Batch
from batcher.workers.watchdog import Watchdog


class HeldBatches:
    """Batches of one worker, oldest first. The worker runs them in this order.

    Only the oldest batch runs, so only the oldest is timed: from when the worker was handed it, or
    from when the batch before it came back.
    """

    def __init__(self, clock: IReactorTime, limit_s: float, overdue: Callable[[], object]) -> None:
        """Hold none; `overdue` is called when the oldest has run for `limit_s` seconds.

        Reactor thread.
        """
        self._batches: deque[Batch] = deque()
        self._watchdog = Watchdog(clock, limit_s, overdue)

    def __len__(self) -> int:
        """Return how many batches are held. Reactor thread."""
        return len(self._batches)

    @property
    def oldest(self) -> Batch | None:
        """The batch that runs, None if there is none. Reactor thread."""
        return self._batches[0] if self._batches else None

    def add(self, batch: Batch) -> None:
        """Hold `batch` behind the others. Reactor thread."""
        if not self._batches:
            self._watchdog.begin()
        self._batches.append(batch)

    def remove_oldest(self) -> None:
        """Hold the oldest no longer: it came back, and the next one begins. Reactor thread."""
        self._batches.popleft()
        if self._batches:
            self._watchdog.begin()
        else:
            self._watchdog.rest()

    def remove_overdue(self) -> None:
        """Hold the oldest no longer: it hangs, and the next one cannot begin. Reactor thread."""
        self._batches.popleft()
        self._watchdog.rest()

    def remove_all(self) -> deque[Batch]:
        """Return all batches, oldest first, and hold none. Reactor thread."""
        batches, self._batches = self._batches, deque()
        self._watchdog.rest()
        return batches

    def rest(self) -> None:
        """Time nothing until the next batch is handed over or comes back. Reactor thread."""
        self._watchdog.rest()

    def stop(self) -> None:
        """Time nothing any more; leave no timer behind, and let go of `overdue`. Reactor thread."""
        self._watchdog.stop()

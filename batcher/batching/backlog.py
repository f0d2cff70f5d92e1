"""How far behind one model is at the moment, and what has come to it.

Asked by whoever divides load among servers, and by what has instances of the model come and go.
Nothing is counted here: a backlog reads what queue, workers and admission know already, and only
when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from batcher.batching.admission import Admission
from batcher.batching.autoscale import Demand
from batcher.batching.places import Places
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import Reruns


class Backlog:
    """What waits and runs in one scheduler, in seconds. Reactor thread."""

    def __init__(
        self,
        queue: BatchQueue,
        places: Places,
        reruns: Reruns,
        admission: Admission,
        level: int,
        seconds: Callable[[], float],
    ) -> None:
        """Store the parts of the scheduler; `level` is that of requests which name none."""
        self._queue, self._places, self._reruns = queue, places, reruns
        self._admission = admission
        self._level = level
        self._seconds = seconds

    def wait_s(self) -> float:
        """Return in how many seconds one more row would be answered, by what batches have taken.

        Infinity while no worker is alive.
        """
        if not self._places.alive:
            return inf
        waiting = self._queue, self._places, len(self._reruns)
        return self._admission.wait(*waiting, 1, self._level, (), self._seconds())

    def stuck_s(self) -> float:
        """Return for how many seconds the batch that began last has run; 0 if a worker is free."""
        free, latest = self._places.free_and_latest()
        return 0.0 if free or latest == -inf else self._seconds() - latest

    def demand(self) -> Demand:
        """Return what has come and what waits, bulk apart."""
        queue, admission = self._queue, self._admission
        refused, full = admission.refused_rows, admission.ceiling.rows
        came = queue.taken_rows + queue.rows + refused
        full_s, ready = admission.batch_seconds(full, ()), self._places.alive
        return Demand(came, refused, queue.rows, full, full_s, ready)

    def batch_s(self, rows: int) -> float:
        """Return how many seconds a batch of `rows` rows takes, as learnt; 0 if unknown."""
        return self._admission.batch_seconds(rows, ())

"""Wait for a number of rows, however long that takes."""

from __future__ import annotations

from math import inf

from batcher.app.simulation.comparisons.facts import Facts, oldest_with_place, send_or_wait
from batcher.batching.policies.policy import NOTHING_TO_DO, Cost, Decision, WorkerState
from batcher.batching.queue import BatchQueue


class Threshold:
    """Sends all that fits once so many rows wait and a worker is free.

    Among the policies that look at the queue alone, one of these has the least mean latency under
    random arrivals.
    """

    def __init__(self, facts: Facts, rows: int) -> None:
        """Send when `rows` rows wait, or as many as fit."""
        self.max_batch_size = facts.max_batch_size
        self._rows = rows

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take if enough rows wait."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        enough = queue.group_rows(oldest.group) >= min(self._rows, size)
        return send_or_wait(queue, worker, oldest, size, now if enough else inf, now, cost)

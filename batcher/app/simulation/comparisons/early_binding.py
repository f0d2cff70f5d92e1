"""Bind batches before a worker is free: Ray Serve, MLServer."""

from __future__ import annotations

from batcher.app.simulation.comparisons.facts import Facts, send_or_wait
from batcher.batching.policies.policy import NOTHING_TO_DO, Cost, Decision, WorkerState
from batcher.batching.queue import BatchQueue


class EarlyBinding:
    """Closes a batch when it is full or its first request has waited, then lets it wait itself.

    A batch that is closed never grows. So the rate times the wait bounds its size, however long it
    then waits for a worker. Needs a scheduler whose workers hold any number of batches.
    """

    def __init__(self, facts: Facts, wait: float) -> None:
        """Close a batch `wait` seconds after its first request came."""
        self.max_batch_size = facts.max_batch_size
        self._wait = wait

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or when the wait is over."""
        oldest = queue.oldest()
        if oldest is None or worker.held >= worker.depth:
            return NOTHING_TO_DO
        size = min(self.max_batch_size, worker.max_rows)
        return send_or_wait(queue, worker, oldest, size, oldest.arrival + self._wait, now, cost)

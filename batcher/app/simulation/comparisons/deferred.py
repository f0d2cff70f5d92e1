"""Start each batch at the latest moment at which its requests are still answered in time."""

from __future__ import annotations

from batcher.app.simulation.comparisons.facts import Facts, oldest_with_place, send_or_wait
from batcher.batching.policies.policy import NOTHING_TO_DO, Cost, Decision, WorkerState
from batcher.batching.queue import BatchQueue

SLACK_SHARE = 0.1
"""Part of a batch's time by which it starts earlier: as much as the server's own margin may grow
by, or the server would drop the batch as too late at the very moment of its start.
"""


class Deferred:
    """Waits as long as the earliest deadline allows, so batches are as full as they can be.

    The device is free for others meanwhile: for several models on one device, not for one.
    """

    def __init__(self, facts: Facts) -> None:
        """Know the true cost of a batch, and where parts have no deadline, the usual one."""
        self.max_batch_size = facts.max_batch_size
        self._seconds = facts.seconds
        self._allowed = facts.allowed

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or at the latest start."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        rows = min(queue.group_rows(oldest.group), size)
        # one more row may come at the last moment, and makes the batch longer
        longest = max(self._seconds(min(rows + 1, size)), cost(rows, oldest.group))
        # the server that drops nothing is told no deadlines
        earliest = min(min(part.deadline, part.arrival + self._allowed) for part in queue.in_turn())
        until = earliest - (1 + SLACK_SHARE) * longest
        return send_or_wait(queue, worker, oldest, size, until, now, cost)

"""The default policy: send the requests that wait as soon as a worker is free.

With one device and open arrivals `Eager` is within half a percent of the best threshold policy at
every load. Batches grow by themselves, because requests gather while the device is busy.

There are two exceptions, in which a free worker waits a little. For clients that return after each
answer, where that was found to bring more than it costs (`batching/returns.py`). And where a model
has several workers, so that those take turns (`batching/stagger.py`).
"""

from __future__ import annotations

from batcher.batching.part import Part
from batcher.batching.policies.packing import has_place, pack_batch
from batcher.batching.policies.policy import (
    NOTHING_TO_DO,
    Cost,
    Decision,
    WaitUntil,
    WorkerState,
    no_cost,
)
from batcher.batching.queue import BatchQueue


class Eager:
    """Sends as many requests as fit, whenever a worker is free and need not wait."""

    def __init__(self, max_batch_size: int, seconds: Cost = no_cost) -> None:
        """Send at most `max_batch_size` rows at a time; `seconds` estimates what batches take.

        Unlike the cost that `decide` is told, `seconds` is known also after a pause.
        """
        self.max_batch_size = max_batch_size
        self._seconds = seconds

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take if the worker can start a batch, or hold one that cannot grow."""
        head = queue.head()
        size = min(self.max_batch_size, worker.max_rows)
        if head is None or not has_place(queue, worker, head.group, size):
            return NOTHING_TO_DO
        rows = queue.group_rows(head.group) if worker.wait_rows else 0
        # rows of other shapes wait for nobody
        if rows != queue.rows:
            return pack_batch(queue, head.group, size, now, cost, "idle")
        wanted = min(worker.wait_rows, size)
        if now >= worker.wait_until or rows >= wanted:
            return pack_batch(queue, head.group, size, now, cost, "waited")
        earliest = min(map(_deadline, queue.in_turn()))
        # a long wait is a pause too, after which requests are still to be in time
        taken = max(cost(wanted, head.group), self._seconds(wanted, head.group))
        if worker.wait_until + taken < earliest:
            return WaitUntil(worker.wait_until, "waited", [])
        return pack_batch(queue, head.group, size, now, cost, "idle")


def _deadline(part: Part) -> float:
    return part.deadline

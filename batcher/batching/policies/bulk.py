"""Bulk requests: they run in what other requests leave over, and never delay those by much.

Bulk rows fill the free rows of batches that were made for other requests. A fuller batch takes
longer, so bulk fills a batch only as far as

    cost(batch with bulk) <= 1.05 * cost(batch without), and no request in it becomes late

Example: 4 of 32 rows are taken and the batch costs 10 ms. If each row more costs 0.1 ms, bulk gets
5 rows: 10.5 ms.

Bulk gets batches of its own when nothing else waits or runs, and no other request has come for a
while: a bulk batch that has begun would make the next request wait for its end.

Refused: bulk as a level of a very low weight. A level decides when batches are sent and what shape
they have, and gets its share also of a busy device.
"""

from __future__ import annotations

from bisect import bisect_right

from batcher.batching.policies.packing import rows_of
from batcher.batching.policies.policy import (
    Cost,
    Decision,
    Idle,
    Policy,
    Take,
    WaitUntil,
    WorkerState,
)
from batcher.batching.queue import BatchQueue
from batcher.batching.ragged_cuts import not_longer, padded_group
from batcher.core.padding import RaggedGroup

BULK = "bulk"
"""The flush reason of a batch of bulk requests alone."""

MAX_SLOWDOWN = 1.05
"""Times that a batch with bulk may take compared to the same batch without.

A twentieth is not noticed beside the jitter of a batch's time.
"""


class BulkLast:
    """Decides as another policy does, and adds bulk requests where that leaves room."""

    def __init__(self, policy: Policy, after: float) -> None:
        """Follow `policy`; bulk gets own batches once no other request has come for `after` s."""
        self.max_batch_size = policy.max_batch_size
        self._policy = policy
        self._after = after

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return the decision of the other policy, with bulk in its batch or in one of its own."""
        decision = self._policy.decide(queue, worker, now, cost)
        if not queue.bulk.rows:
            return decision
        size = min(self.max_batch_size, worker.max_rows)
        if isinstance(decision, Take):
            return self._filled(decision, queue, size, now, cost)
        if queue.rows or worker.held:
            return decision
        until = queue.last_arrival + self._after
        if now < until and not worker.draining:
            return WaitUntil(until, BULK, [])
        return self._alone(queue, size, now, cost)

    def _filled(self, take: Take, queue: BatchQueue, size: int, now: float, cost: Cost) -> Decision:
        """Add as much bulk as makes the batch hardly longer, and no request in it late."""
        group, rows = take.parts[0].group, rows_of(take.parts)
        most = min(size, rows + queue.bulk.group_rows(group))
        shape = padded_group(take.parts) if queue.cuts is not None else group
        if queue.cuts is not None:
            most = min(most, queue.cuts.most_rows(shape))
        if most <= rows:
            return take
        earliest = min(part.deadline for part in take.parts)
        longest = min(MAX_SLOWDOWN * cost(rows, shape), earliest - now)
        # the cost grows with the rows, so the last size that is cheap enough is found by halving
        free = bisect_right(
            range(rows + 1, most + 1), longest, key=lambda filled: cost(filled, shape)
        )
        if not free:
            return take
        parts, shed = queue.bulk.pack_in_time(group, free, now, now + cost(rows + free, shape))
        parts = not_longer(parts, shape)
        return Take(take.parts + parts, take.reason, take.shed + shed)

    def _alone(self, queue: BatchQueue, size: int, now: float, cost: Cost) -> Decision:
        head = queue.bulk.head()
        assert head is not None, "bulk waits"
        if queue.cuts is not None and isinstance(head.group, RaggedGroup):
            parts, shed = queue.cuts.pack(queue.bulk, head.group, size, now, cost)
            return Take(parts, BULK, shed) if parts else Idle(shed)
        rows = min(queue.bulk.group_rows(head.group), size)
        parts, shed = queue.bulk.pack_in_time(
            head.group, size, now, now + cost(rows, head.group), at_least_one=True
        )
        return Take(parts, BULK, shed) if parts else Idle(shed)

"""Bulk requests: they take what others leave, and never delay them by much.

They fill the free places of batches that others made. A fuller batch takes longer, so they fill
only as far as the learnt cost allows. Batches of their own they get when nothing else waits or runs
and nothing else has come for a while: a batch of theirs that has begun would make the next request
wait for its end.

Refused: a level of a very low weight. It decides when batches are sent and what shape they have,
and gets its share of a busy device.
"""

from __future__ import annotations

from bisect import bisect_right

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

BULK = "bulk"
"""The flush reason of a batch of bulk requests alone."""

LONGER = 1.05
"""A batch may take so many times what it would without bulk: what nobody notices beside the jitter
of a batch's time.
"""


class BulkLast:
    """What another policy decides, with bulk requests where it leaves room for them."""

    def __init__(self, policy: Policy, after: float) -> None:
        """Follow `policy`; bulk gets batches of its own when nothing else has come for `after` seconds."""
        self.max_batch_size = policy.max_batch_size
        self._policy = policy
        self._after = after

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return what the other policy decides.

        Where bulk waits, fill its batch, or, if there is nothing to do, make one.
        """
        decision = self._policy.decide(queue, worker, now, cost)
        if not queue.bulk.rows:
            return decision
        size = min(self.max_batch_size, worker.most)
        if isinstance(decision, Take):
            return self._filled(decision, queue, size, now, cost)
        if queue.rows or worker.held:
            return decision
        until = queue.last_arrival + self._after
        if now < until and not worker.draining:
            return WaitUntil(until, BULK, [])
        return self._alone(queue, size, now, cost)

    def _filled(self, take: Take, queue: BatchQueue, size: int, now: float, cost: Cost) -> Decision:
        """Add as much bulk as makes the batch hardly longer, and none of its requests late."""
        group, rows = take.parts[0].group, sum(part.rows for part in take.parts)
        most = min(size, rows + queue.bulk.group_rows(group))
        if most <= rows:
            return take
        longest = min(LONGER * cost(rows, group), min(part.deadline for part in take.parts) - now)
        places = bisect_right(
            range(rows + 1, most + 1), longest, key=lambda filled: cost(filled, group)
        )
        if not places:
            return take
        parts, shed = queue.bulk.pack_in_time(group, places, now, now + cost(rows + places, group))
        return Take(take.parts + parts, take.reason, take.shed + shed)

    def _alone(self, queue: BatchQueue, size: int, now: float, cost: Cost) -> Decision:
        head = queue.bulk.head()
        assert head is not None, "bulk waits"
        rows = min(queue.bulk.group_rows(head.group), size)
        parts, shed = queue.bulk.pack_in_time(
            head.group, size, now, now + cost(rows, head.group), at_least_one=True
        )
        return Take(parts, BULK, shed) if parts else Idle(shed)

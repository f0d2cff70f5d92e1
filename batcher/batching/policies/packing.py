"""How policies fill a batch: which requests go, which are too late, and the flush reason."""

from __future__ import annotations

from collections.abc import Hashable

from batcher.batching.part import Part
from batcher.batching.policies.policy import FULL, Cost, Decision, Idle, Take, WorkerState
from batcher.batching.queue import BatchQueue


def has_place(queue: BatchQueue, worker: WorkerState, group: Hashable, max_batch_size: int) -> bool:
    """Return whether the worker is free, or may hold the next batch, which cannot grow."""
    return worker.held == 0 or (
        worker.held < worker.depth and queue.group_rows(group) >= max_batch_size
    )


def pack_batch(
    queue: BatchQueue, group: Hashable, max_rows: int, now: float, cost: Cost, reason: str
) -> Decision:
    """Pack a batch of `group`, without the parts that would be late if it ran now.

    The time of the batch is estimated from all rows of the group that wait. So a part may be shed
    that would have been in time in the smaller batch that remains: a batch is not shrunk to save
    old requests.
    """
    available = queue.group_rows(group)
    seconds = cost(min(available, max_rows), group)
    parts, shed = queue.pack_in_time(group, max_rows, now, now + seconds, at_least_one=True)
    if not parts:
        return Idle(shed)
    rows = rows_of(parts)
    # rows of the shape are left over, or no row fits any more
    if rows + rows_of(shed) < available or rows == max_rows:
        reason = FULL
    elif reason == "idle" and queue.rows > available:
        reason = "shape"
    return Take(parts, reason, shed)


def rows_of(parts: list[Part]) -> int:
    """Return the rows of all `parts`."""
    return sum(part.rows for part in parts)

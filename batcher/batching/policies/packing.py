"""How policies fill a batch: which requests go, which are too late, and the flush reason."""

from __future__ import annotations

from collections.abc import Hashable

from batcher.batching.part import Part
from batcher.batching.policies.policy import FULL, Cost, Decision, Idle, Take, WorkerState
from batcher.batching.queue import BatchQueue
from batcher.core.padding import RaggedGroup
from batcher.core.run_sizes import RunSizes


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
    old requests. Where rows are padded, the batch is cut by lengths (`ragged_cuts`).
    """
    available = queue.group_rows(group)
    is_cut = queue.cuts is not None and isinstance(group, RaggedGroup)
    parts, shed = _fill(queue, group, max_rows, now, cost)
    if not parts:
        return Idle(shed)
    parts = _worth_running(parts, queue.run_sizes, now, cost)
    rows = rows_of(parts)
    # rows of the shape are left over, or no row fits any more
    if rows == max_rows or (rows + rows_of(shed) < available and not is_cut):
        reason = FULL
    # rows of other lengths count as rows of other shapes
    elif reason == "idle" and queue.rows > (rows if is_cut else available):
        reason = "shape"
    return Take(parts, reason, shed)


def _worth_running(parts: list[Part], sizes: RunSizes, now: float, cost: Cost) -> list[Part]:
    """Return those of `parts` that go now, where batches run with some numbers of rows alone.

    Rows beyond the largest such number wait where that is cheaper for each row:

        cost(fewer) / fewer < cost(rows) / rows

    Example: 9 rows wait, and multiples of 8 run. If 8 rows take 5 ms and 16 take 9 ms, 8 go at
    0.63 ms each; 9 would take 1 ms each. If 16 take 5.5 ms, all 9 go, and also if the ninth would
    be late in a batch behind that of 8.
    """
    rows = rows_of(parts)
    left = sizes.below(rows)
    if left in (0, rows):
        return parts
    fewer: list[Part] = []
    for part in parts:
        left -= part.rows
        if left < 0:
            break
        fewer.append(part)
    group, taken = parts[0].group, rows_of(fewer)
    first, rest = cost(taken, group), cost(rows - taken, group)
    in_time = min([part.deadline for part in parts[len(fewer) :]]) >= now + first + rest
    return fewer if in_time and first * rows < cost(rows, group) * taken else parts


def _fill(
    queue: BatchQueue, group: Hashable, max_rows: int, now: float, cost: Cost
) -> tuple[list[Part], list[Part]]:
    """Return the parts of the next batch, and those that would be late in it."""
    if queue.cuts is not None and isinstance(group, RaggedGroup):
        return queue.cuts.pack(queue, group, max_rows, now, cost)
    seconds = cost(min(queue.group_rows(group), max_rows), group)
    return queue.pack_in_time(group, max_rows, now, now + seconds, at_least_one=True)


def rows_of(parts: list[Part]) -> int:
    """Return the rows of all `parts`."""
    return sum(part.rows for part in parts)

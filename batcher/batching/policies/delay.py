"""The policy of other servers: wait for a full batch, but not for long.

Refused as a default: its timer is idle time on an idle device.
"""

from __future__ import annotations

from batcher.batching.policies.packing import has_place, pack_batch, rows_of
from batcher.batching.policies.policy import (
    FULL,
    NOTHING_TO_DO,
    Cost,
    Decision,
    WaitUntil,
    WorkerState,
)
from batcher.batching.queue import BatchQueue


class Delay:
    """Waits for a full or preferred batch, at most `max_delay` seconds after the oldest arrival.

    In this order a batch is sent with

    1. the oldest request and others of its shape, if the delay is over;
    2. a shape of which a full batch waits;
    3. a shape of which a preferred size waits, if the worker has nothing to do;
    4. the most urgent request and others of its shape, if the worker has nothing to do and further
       waiting would make that request late, or no more requests will come.
    """

    def __init__(
        self, max_batch_size: int, max_delay: float, preferred: tuple[int, ...] = ()
    ) -> None:
        """Wait at most `max_delay` seconds for `max_batch_size` rows.

        The worker is not left idle once a size in `preferred` is reached, the largest first.
        """
        self.max_batch_size = max_batch_size
        self._max_delay = max_delay
        self._preferred = tuple(sorted(preferred, reverse=True))

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for the first case that holds, else the time at which the delay is over."""
        oldest = queue.oldest()
        if oldest is None or worker.held >= worker.depth:
            return NOTHING_TO_DO
        size, until = min(self.max_batch_size, worker.max_rows), oldest.arrival + self._max_delay
        # the oldest request is overtaken by none now, not even in the worker's second place
        if now >= until:
            if not has_place(queue, worker, oldest.group, size):
                return NOTHING_TO_DO
            return pack_batch(queue, oldest.group, size, now, cost, "waited")
        full = queue.group_of_at_least(size)
        if full is not None:
            return pack_batch(queue, full, size, now, cost, FULL)
        return NOTHING_TO_DO if worker.held else self._wait(queue, worker, size, until, now, cost)

    def _wait(
        self,
        queue: BatchQueue,
        worker: WorkerState,
        most: int,
        until: float,
        now: float,
        cost: Cost,
    ) -> Decision:
        for size in self._preferred:
            group = queue.group_of_at_least(size) if size <= most else None
            # enough rows wait, but large requests may leave a gap that makes the size another
            if group is not None and rows_of(queue.pack(group, size, now)) == size:
                return pack_batch(queue, group, size, now, cost, FULL)
        urgent = min(queue.in_turn(), key=lambda part: part.deadline)
        if worker.draining:
            return pack_batch(queue, urgent.group, most, now, cost, "drain")
        rows = min(queue.group_rows(urgent.group), most)
        if urgent.deadline <= until + cost(rows, urgent.group):
            return pack_batch(queue, urgent.group, most, now, cost, "deadline")
        return WaitUntil(until, "waited", [])

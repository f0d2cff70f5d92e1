"""Waits for a fuller batch that differ in where their timer starts.

| policy | the timer starts |
|---|---|
| `DequeueDelay` | when a worker takes the first request: Mosec, TorchServe, LitServe, DJL |
| `FixedWait` | when a batch has ended: what a learned wait would do at its best, without learning |
| `Stagger` | when a batch has begun on another device: several devices then take turns |
"""

from __future__ import annotations

from batcher.app.simulation.comparisons.facts import Facts, oldest_with_place, send_or_wait
from batcher.batching.policies.policy import NOTHING_TO_DO, Cost, Decision, WorkerState
from batcher.batching.queue import BatchQueue


class DequeueDelay:
    """A worker that is free takes the first request, then waits for a full batch.

    The worker waits at most `wait` seconds, also where the request has waited long already.
    """

    def __init__(self, facts: Facts, wait: float) -> None:
        """Wait at most `wait` seconds."""
        self.max_batch_size = facts.max_batch_size
        self._watch = facts.watch
        self._wait = wait

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or when the worker's wait is over."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        until = max(oldest.arrival, self._watch.idle_since) + self._wait
        return send_or_wait(queue, worker, oldest, size, until, now, cost)


class FixedWait:
    """Sends as `Eager` does, but not within `wait` seconds of the end of a batch.

    The clients of that batch may be about to send their next requests.
    """

    def __init__(self, facts: Facts, wait: float) -> None:
        """Wait until `wait` seconds after the last end of a batch."""
        self.max_batch_size = facts.max_batch_size
        self._watch = facts.watch
        self._wait = wait

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or when the wait is over."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        until = self._watch.last_end + self._wait
        return send_or_wait(queue, worker, oldest, size, until, now, cost)


class Stagger:
    """Sends as `Eager` does, but not within `wait` seconds of the beginning of another batch.

    With K devices and a wait of a Kth of a batch, one device becomes free after the other, and a
    request waits for the next one alone.
    """

    def __init__(self, facts: Facts, wait: float) -> None:
        """Leave `wait` seconds between the beginnings of two batches."""
        self.max_batch_size = facts.max_batch_size
        self._watch = facts.watch
        self._wait = wait

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or when the wait is over."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        until = self._watch.last_begin + self._wait
        return send_or_wait(queue, worker, oldest, size, until, now, cost)

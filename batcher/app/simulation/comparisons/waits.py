"""Waits for a fuller batch that differ in where their timer starts.

| policy | the timer starts |
|---|---|
| `DequeueDelay` | when a worker takes the first request: Mosec, TorchServe, LitServe, DJL |
| `FixedWait` | when a batch has ended: what a learned wait would do at its best, without learning |
| `Stagger` | when a batch has begun on another device: several devices then take turns |
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from batcher.app.simulation.comparisons.facts import Facts, oldest_with_place, send_or_wait
from batcher.batching.part import Part
from batcher.batching.policies.policy import NOTHING_TO_DO, Cost, Decision, WorkerState
from batcher.batching.queue import BatchQueue


class _Wait(ABC):
    """Sends a full batch at once, and what there is when the timer has rung."""

    def __init__(self, facts: Facts, wait: float) -> None:
        """Have the timer ring `wait` seconds after its start."""
        self.max_batch_size = facts.max_batch_size
        self._watch = facts.watch
        self._wait = wait

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a full batch, or when the wait is over."""
        size = min(self.max_batch_size, worker.max_rows)
        oldest = oldest_with_place(queue, worker, size)
        if oldest is None:
            return NOTHING_TO_DO
        until = self._start(oldest) + self._wait
        return send_or_wait(queue, worker, oldest, size, until, now, cost)

    @abstractmethod
    def _start(self, oldest: Part) -> float:
        """Return the time in seconds at which the timer starts; `oldest` waits longest."""


class DequeueDelay(_Wait):
    """A worker that is free takes the first request, then waits for a full batch.

    The worker waits the whole time, also where the request has waited long already.
    """

    def _start(self, oldest: Part) -> float:
        return max(oldest.arrival, self._watch.idle_since)


class FixedWait(_Wait):
    """Sends as `Eager` does, but not so soon after the end of a batch.

    The clients of that batch may be about to send their next requests.
    """

    def _start(self, oldest: Part) -> float:
        return self._watch.last_end


class Stagger(_Wait):
    """Sends as `Eager` does, but not so soon after the beginning of another batch.

    With K devices and a wait of a Kth of a batch, one device becomes free after the other, and a
    request waits for the next one alone.
    """

    def _start(self, oldest: Part) -> float:
        return self._watch.last_begin

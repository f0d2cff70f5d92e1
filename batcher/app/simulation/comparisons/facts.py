"""What a comparison is made from, and what all of them do alike."""

from __future__ import annotations

from typing import NamedTuple

from batcher.app.simulation.devices import Watch
from batcher.batching.part import Part
from batcher.batching.policies.packing import has_place, pack_batch
from batcher.batching.policies.policy import FULL, Cost, Decision, WaitUntil, WorkerState
from batcher.batching.queue import BatchQueue

WAITED = "waited"


class Facts(NamedTuple):
    """What a comparison may know.

    Attributes:
        max_batch_size: most rows of a batch.
        watch: when devices became idle.
    """

    max_batch_size: int
    watch: Watch


def oldest_with_place(queue: BatchQueue, worker: WorkerState, size: int) -> Part | None:
    """Return the oldest part if the worker may take a batch of its shape, else None."""
    oldest = queue.oldest()
    return oldest if oldest and has_place(queue, worker, oldest.group, size) else None


def send_or_wait(
    queue: BatchQueue,
    worker: WorkerState,
    oldest: Part,
    size: int,
    until: float,
    now: float,
    cost: Cost,
) -> Decision:
    """Take a batch of the oldest part's shape if it is full, or at `until`; else wait for that."""
    if queue.group_rows(oldest.group) >= size:
        return pack_batch(queue, oldest.group, size, now, cost, FULL)
    if now >= until or worker.draining:
        return pack_batch(queue, oldest.group, size, now, cost, WAITED)
    return WaitUntil(until, WAITED, [])

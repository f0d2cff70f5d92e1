"""When is a batch sent, and with what.

Pure decisions over the queue, the worker's state and the time.

`Eager` (the default) sends what is there as soon as the worker is free. With one device and open
arrivals that is within half a percent of the best threshold policy at every load, and a batch grows
by itself because requests gather while the device is busy. `Delay` waits as other servers do;
refused as a default because its timer is idle time on an idle device.

Under every policy a worker's second place is filled only by a batch that cannot grow. Binding a
smaller one while another runs freezes it too early: simulated at 16 closed-loop clients of a
fixed-cost model, 3,333 rows/s fall to 2,353.

Flush reasons: `full` (it cannot grow), `idle` (the worker was free), `shape` (others wait, but in
other shapes), `waited` (the delay is over), `deadline` (waiting longer would endanger one), `drain`
(the server is being stopped). `bulk` stands in `scheduling/bulk.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue

FULL = "full"
"""The flush reason of a batch that could not grow."""

Cost = Callable[[int, Hashable], float]
"""Estimates within how many seconds a batch of so many rows of a shape, begun now, is answered."""


def no_cost(rows: int, group: Hashable) -> float:
    """Estimate nothing: only what has expired already is dropped."""
    return 0.0


class WorkerState(NamedTuple):
    """What a decision needs to know of the worker.

    Attributes:
        held: batches that it holds, running or ready.
        places: how many it may hold.
        draining: whether no further requests will come.
        most: rows of the largest batch that fits into its memory.
    """

    held: int
    places: int
    draining: bool = False
    most: int = 1 << 31


class Take(NamedTuple):
    """Send `parts` as one batch now, for `reason`; answer `shed` with their deadline first."""

    parts: list[Part]
    reason: str
    shed: list[Part]


class WaitUntil(NamedTuple):
    """Decide again at `time`, in seconds, or when something changes; answer `shed` first."""

    time: float
    reason: str
    shed: list[Part]


class Idle(NamedTuple):
    """Do nothing until something changes; answer `shed` first."""

    shed: list[Part]


Decision = Take | WaitUntil | Idle
NOTHING = Idle([])


class Policy(Protocol):
    """Decides; holds settings, never state."""

    max_batch_size: int

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return what to do at `now`, without changing anything."""


class Eager:
    """Worker free and queue not empty: send what fits."""

    def __init__(self, max_batch_size: int) -> None:
        """Send at most `max_batch_size` rows at a time."""
        self.max_batch_size = max_batch_size

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take whenever the worker can start a batch, or hold one that cannot grow."""
        head = queue.head()
        size = min(self.max_batch_size, worker.most)
        if head is None or not _has_place(queue, worker, head.group, size):
            return NOTHING
        return _take(queue, head.group, size, now, cost, "idle")


class Delay:
    """Wait for a full or preferred batch, at most `max_delay` after the oldest arrival.

    What has waited long enough goes first, whatever its shape. A full batch of another shape does
    not wait behind it before that, and nobody's deadline passes beside a worker that has nothing to
    do.
    """

    def __init__(
        self, max_batch_size: int, max_delay: float, preferred: tuple[int, ...] = ()
    ) -> None:
        """Wait at most `max_delay` seconds for `max_batch_size` rows, or for the largest size in `preferred` reached."""
        self.max_batch_size = max_batch_size
        self._max_delay = max_delay
        self._preferred = tuple(sorted(preferred, reverse=True))

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a batch that is old enough, full, preferred or endangered, else the time to look again."""
        oldest = queue.oldest()
        if oldest is None or worker.held >= worker.places:
            return NOTHING
        size, until = min(self.max_batch_size, worker.most), oldest.arrival + self._max_delay
        if now >= until:  # it is overtaken by none, not even in the second place
            fits = _has_place(queue, worker, oldest.group, size)
            return _take(queue, oldest.group, size, now, cost, "waited") if fits else NOTHING
        full = queue.group_of_at_least(size)
        if full is not None:
            return _take(queue, full, size, now, cost, FULL)
        return NOTHING if worker.held else self._wait(queue, worker, size, until, now, cost)

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
            if (
                group is not None
                and sum(part.rows for part in queue.pack(group, size, now)) == size
            ):
                return _take(queue, group, size, now, cost, FULL)
        urgent = min(queue.in_turn(), key=lambda part: part.deadline)
        if worker.draining:
            return _take(queue, urgent.group, most, now, cost, "drain")
        if urgent.deadline <= until + cost(min(queue.group_rows(urgent.group), most), urgent.group):
            return _take(queue, urgent.group, most, now, cost, "deadline")
        return WaitUntil(until, "waited", [])


def _has_place(
    queue: BatchQueue, worker: WorkerState, group: Hashable, max_batch_size: int
) -> bool:
    return worker.held == 0 or (
        worker.held < worker.places and queue.group_rows(group) >= max_batch_size
    )


def _take(
    queue: BatchQueue, group: Hashable, max_rows: int, now: float, cost: Cost, reason: str
) -> Decision:
    """Pack a batch, dropping every part in it that would miss its deadline by the batch that is about to run."""
    available = queue.group_rows(group)
    seconds = cost(min(available, max_rows), group)
    parts, shed = queue.pack_in_time(group, max_rows, now, now + seconds, at_least_one=True)
    if not parts:
        return Idle(shed)
    rows = sum(part.rows for part in parts)
    if rows + sum(part.rows for part in shed) < available or rows == max_rows:
        reason = FULL
    elif reason == "idle" and queue.rows > available:
        reason = "shape"
    return Take(parts, reason, shed)

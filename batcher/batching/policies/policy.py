"""What a policy is: it decides when a batch is sent, and with which requests.

The dispatcher asks its policy whenever something has changed: a request has come, a batch is back,
a timer has rung. The policy looks at the queue, the worker, the time and the cost of batches, and
answers `Take`, `WaitUntil` or `Idle`. A new policy is a file beside this one; `eager` is the
shortest example, and `packing` fills its batches.

Under every policy a worker's second place is filled only by a batch that cannot grow. A smaller
batch that is bound while another runs is frozen too early: simulated at 16 closed-loop clients of a
fixed-cost model, 3,333 rows/s fall to 2,353.

Each batch carries a flush reason, which metrics count:

    full       the batch cannot grow
    idle       the worker was free
    shape      the worker was free, and the other requests that wait have other shapes
    waited     the delay is over (`delay`), or the clients have returned (`eager`)
    deadline   waiting longer would make a request late (`delay`, `deferred`)
    drain      the server is being stopped, so no more requests will come (`delay`, `deferred`)
    bulk       only bulk requests waited (`bulk`)
    isolate, retry, memory   the batch runs again (`reruns`)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue

FULL = "full"
"""The flush reason of a batch that cannot grow."""

Cost = Callable[[int, Hashable], float]
"""Estimates within how many seconds a batch of so many rows of a shape, begun now, is answered."""


def no_cost(rows: int, group: Hashable) -> float:
    """Return 0: nothing is known, so only requests that have expired already are ended."""
    return 0.0


class WorkerState(NamedTuple):
    """The state of the worker that takes the next batch.

    Attributes:
        held: batches that the worker holds, running or ready.
        depth: most batches that the worker may hold.
        draining: whether no further requests will come.
        max_rows: rows of the largest batch that fits into the device's memory.
        wait_until: time in seconds until which clients are likely to return (`returns`).
        wait_rows: rows that are likely to be there by then; 0 where nobody is waited for.
    """

    held: int
    depth: int
    draining: bool = False
    max_rows: int = 1 << 31
    wait_until: float = 0.0
    wait_rows: int = 0


class Take(NamedTuple):
    """Send `parts` as one batch now, for `reason`, and end `shed`, which would be late.

    The same `shed` stands in the other decisions.
    """

    parts: list[Part]
    reason: str
    shed: list[Part]


class WaitUntil(NamedTuple):
    """Send nothing; decide again at `time`, in seconds, or earlier if something changes."""

    time: float
    reason: str
    shed: list[Part]


class Idle(NamedTuple):
    """Send nothing; decide again when something changes."""

    shed: list[Part]


Decision = Take | WaitUntil | Idle
NOTHING_TO_DO = Idle([])


class Policy(Protocol):
    """Decides what is sent. A policy holds settings, never state.

    Attributes:
        max_batch_size: most rows of a batch.
    """

    max_batch_size: int

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return what to do at `now`, without changing anything.

        Args:
            queue: the requests that wait.
            worker: the worker that takes the next batch.
            now: the time, in seconds.
            cost: seconds until a batch of so many rows of a shape is answered.
        """

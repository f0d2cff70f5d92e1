"""Start each batch at the latest moment that meets its deadlines, so the device is free meanwhile.

For several models on one device: fewer and fuller batches leave more of the device to the others.
The answers come later for it.

    due    = arrival + 0.9 * min(deadline - arrival, slo)   when a request is to be answered
    start  = earliest due - 1.1 * l(n + 1 + n / 16)         when the batch of n rows is sent

`slo` is the deadline of a request that names none. It also bounds the wait of a request that allows
more: clients name deadlines of half a minute as a safety, not as a wish to wait so long.

Example: slo = 40 ms, l(b) = 2 ms + 0.25 ms * b, and the first of 8 rows came at 0 ms. One more row
is reckoned with: 1.1 * 4.25 ms is 4.7 ms, so the batch starts at 36 ms - 4.7 ms = 31.3 ms.

Several shapes need a batch each, one behind the other. Their starts are found from the last due
backwards, each batch before the start of the next:

    start = min(due, start of the next) - time of the batch

A full batch gains nothing by a wait, and goes at once. So does one whose time is not known, which
has to run to be learnt.

Refused: no slack. The server would drop the batch as too late at the very moment of its start.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from batcher.batching.part import Part
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
from batcher.batching.ragged_cuts import padded_group

SLACK = 1.1
"""Times its own that a batch is given: by so much may the server's own margin grow, too."""

SHARE = 0.9
"""Part of a request's time after which it is to be answered: timers, a busy loop and the way back
are late by milliseconds, and a batch that is started too late is lost.
"""

JOINING = 16
"""Rows that wait for each row more that is reckoned with: it may come at the last moment."""

DEADLINE = "deadline"


class Deferred:
    """Waits as long as the earliest deadline allows, so that batches are as full as can be."""

    def __init__(self, max_batch_size: int, slo: float, seconds: Cost) -> None:
        """Answer each request within `slo` seconds; `seconds` estimates what batches take.

        Unlike the cost that `decide` is told, `seconds` is known also after a pause.
        """
        self.max_batch_size = max_batch_size
        self._slo = slo
        self._seconds = seconds

    def decide(self, queue: BatchQueue, worker: WorkerState, now: float, cost: Cost) -> Decision:
        """Return Take for a batch that is due or full, else the time of the latest start."""
        if not queue.rows or worker.held >= worker.depth:
            return NOTHING_TO_DO
        size = min(self.max_batch_size, worker.max_rows)
        start, group = self._latest_start(queue, size, cost)
        if now >= start or worker.draining:
            if not has_place(queue, worker, group, size):
                return NOTHING_TO_DO
            return pack_batch(queue, group, size, now, cost, DEADLINE if now >= start else "drain")
        full = queue.group_of_at_least(size)
        if full is not None:
            return pack_batch(queue, full, size, now, cost, FULL)
        return NOTHING_TO_DO if worker.held else WaitUntil(start, DEADLINE, [])

    def _latest_start(self, queue: BatchQueue, size: int, cost: Cost) -> tuple[float, Hashable]:
        """Return when the first batch must start, and the group of that batch."""
        groups: dict[Hashable, list[Part]] = {}
        for part in queue.in_turn():
            groups.setdefault(part.group, []).append(part)
        dues = [(min(map(self._due, parts)), parts) for parts in groups.values()]
        dues.sort(key=_first, reverse=True)
        start = inf
        for due, parts in dues:
            start = min(start, due) - self._time(queue, parts, size, cost)
        return start, dues[-1][1][0].group

    def _due(self, part: Part) -> float:
        return part.arrival + SHARE * min(part.deadline - part.arrival, self._slo)

    def _time(self, queue: BatchQueue, parts: list[Part], size: int, cost: Cost) -> float:
        """Return the seconds that `parts` are given, of one group; infinity if that is unknown.

        Rows of unequal lengths count as if all were padded to the longest: no cut takes longer.
        """
        group = padded_group(parts)
        most = size if queue.cuts is None else min(size, queue.cuts.most_rows(group))
        waiting = rows_of(parts)
        rows = waiting + 1 + waiting // JOINING
        if waiting <= most:
            rows = min(rows, most)
        full, rest = divmod(rows, most)
        seconds = full * self._longest(most, group, cost) if full else 0.0
        if rest:
            seconds += self._longest(rest, group, cost)
        return seconds

    def _longest(self, rows: int, group: Hashable, cost: Cost) -> float:
        seconds = self._seconds(rows, group)
        return max(SLACK * seconds, cost(rows, group)) if seconds else inf


def _first(pair: tuple[float, list[Part]]) -> float:
    return pair[0]

"""Whether a request can make its deadline, asked when it comes.

A refusal at once is worth more than an answer too late.

Predicted is the end of its own batch: what is left of the batches that run, whole batches of what
is served before it, what is run again by turns with these, and its own as it will have grown by
then at the rate at which requests come. What is served before it follows from the shares of the
levels. Above capacity the queue so holds only what can be answered in time, and what is refused can
go elsewhere.

Where more is asked than can be done, whoever would only just make it is refused for somebody who
comes a little later and has more time left: that costs nothing, and what a prediction cannot see
(sockets, a busy loop, the way to the client) then makes nobody late. How much of their time can be
asked for follows from the rate of requests: batches must still be full.

What is not known is not refused, and after a second without a batch nothing is: an estimate that
keeps everybody out would never be corrected.

Source: admission by predicted finish as in Clockwork, here with whole batches and learnt times.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from math import ceil, inf, sqrt
from random import random
from typing import NamedTuple

from mypy_extensions import mypyc_attr

from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.cost import CostModel
from batcher.batching.places import Places
from batcher.batching.policies.bulk import BULK
from batcher.batching.policies.policy import Cost, no_cost
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import RERUNS
from batcher.errors import PredictedLate

LONGEST = 60
"""Most seconds that a client is told to wait: by then everything may be different."""

RATE_GAIN = 0.1
"""Weight of the time between two batches in the mean rate of arrivals."""

MOST_RESERVE = 0.15
"""Part of a batch's time that a request may have to have left: 3 ms of 20, more than an answer is
on its way.
"""

STALE = 1.0
"""Seconds without a batch after which what was learnt is tried again."""


JOIN_NONE = (BULK, *RERUNS)
"""Reasons of batches whose rows join none that then takes longer: of bulk, and of what was let in
before and runs again.
"""


class Learnt(NamedTuple):
    """What is known, for people.

    Attributes:
        batches: mean rows and mean seconds of batches, by classes of sizes.
        margin: seconds by which answers leave later than that.
        reserve: seconds that a request must have left besides.
    """

    batches: list[tuple[float, float]]
    margin: float
    reserve: float


@mypyc_attr(allow_interpreted_subclasses=True)
class Admission:
    """Learns how long batches take, and refuses what would be answered too late.

    Attributes:
        ceiling: how large a batch may be, which its scheduler learns.
        horizon: seconds within which a full queue is worked off: who has more need not be checked.
        reserve: seconds that must be left of a request's time, since enough others have them.
    """

    def __init__(
        self,
        cost: CostModel,
        max_batch_size: int,
        max_rows: int,
        jitter: Callable[[], float] = random,
    ) -> None:
        """Predict by `cost`.

        Args:
            cost: what is known of batches.
            max_batch_size: most rows of one.
            max_rows: most that may wait.
            jitter: gives 0 to 1, so that clients who were refused together do not come back
                together.
        """
        self._cost = cost
        self.ceiling = Ceiling(max_batch_size)
        self._max_rows = max_rows
        self._jitter = jitter
        self._ended = -inf  # when the last batch came back
        self._rate = 0.0  # rows/s that are let in, a moving mean
        self._asked = 0  # rows that wanted to be let in since the last batch
        self._offered = 0.0  # those between two batches, a moving mean
        self._done = 0.0  # rows of a batch, likewise
        self.horizon = inf
        self.reserve = 0.0

    def seed(self, timings: Iterable[tuple[int, float]]) -> None:
        """Learn from warm-up: rows and seconds of batches."""
        self._cost.seed(timings)

    def learnt(self) -> Learnt:
        """Return what is known."""
        return Learnt(self._cost.learnt(), self._cost.margin, self.reserve)

    def came_back(
        self, batch: Batch, began: float, now: float, seconds: float, failed: bool
    ) -> None:
        """Learn from `batch`, which began at `began` and took its worker `seconds`.

        The rest until `now` it was late.
        """
        if now > self._ended > -inf:
            rows = 0 if batch.reason in JOIN_NONE else batch.rows
            self._rate += RATE_GAIN * (rows / (now - self._ended) - self._rate)
        self._ended = now
        self._offered += RATE_GAIN * (self._asked - self._offered)
        self._done += RATE_GAIN * (batch.rows - self._done)
        self._asked = 0
        self.reserve = self._spare(seconds) if batch.rows >= self.ceiling.rows else self.reserve / 2
        if not failed:
            self._cost.add(
                batch.rows, batch.parts[0].group, seconds, max(now - began - seconds, 0.0)
            )
            most = self.ceiling.rows
            self.horizon = (self._max_rows / most + 3) * self._cost.finish(most)

    def cost(self, places: Places, now: float) -> Cost:
        """Return what estimates within how many seconds a batch, handed over now, is answered."""
        if self._is_stale(places, now):
            return no_cost
        finish, left = self._cost.finish, places.left(self._cost.seconds, now)
        return (lambda rows, group: left + finish(rows, group)) if left else finish

    def check(
        self,
        queue: BatchQueue,
        places: Places,
        reruns: int,
        rows: int,
        level: int,
        group: Hashable,
        now: float,
        deadline: float,
    ) -> None:
        """Raise PredictedLate if `rows` rows of `level` and of the shape `group` would be answered behind `deadline`.

        `reruns` batches wait to be run again.
        """
        self._asked += rows
        if self._is_stale(places, now):
            return
        wait = self._wait(queue, places, reruns, rows, level, group, now)
        if now + wait + self.reserve > deadline:
            told = (
                f"the request would be answered in about {wait:.3f} s; its deadline is in "
                f"{deadline - now:.3f} s"
            )
            raise PredictedLate(told, retry_after=self.retry_after(now + wait - deadline))

    def retry_after(self, seconds: float | None = None) -> int:
        """Return the advice for a client that must wait `seconds`, or for a full queue.

        Whole seconds, at least 1, jittered.
        """
        backlog = min(self.horizon, LONGEST) if seconds is None else seconds
        return min(max(ceil(backlog * (1 + self._jitter())), 1), LONGEST)

    def _spare(self, seconds: float) -> float:
        """Return for how long of a full batch, which takes `seconds`, enough have come already to fill the next one."""
        return (
            min(max(1 - self._done / self._offered, 0.0), MOST_RESERVE) * seconds
            if self._offered
            else 0.0
        )

    def _wait(
        self,
        queue: BatchQueue,
        places: Places,
        reruns: int,
        rows: int,
        level: int,
        group: Hashable,
        now: float,
    ) -> float:
        seconds, most = self._cost.seconds, self.ceiling.rows
        whole, rest = divmod(queue.rows_before(level, rows, now) + rows, most)
        start = places.left(seconds, now) + whole // places.alive * seconds(most, group)
        start += (
            min(reruns, whole + bool(rest)) // places.alive * seconds(1, group)
        )  # at least: what they are is not known
        more = (
            self._rate * start
        )  # that will come and join its batch, and as many more as chance may bring
        grown = min(rest + int(more + sqrt(more)), most) if rest else 0
        return start + (seconds(grown, group) if grown else 0.0) + self._cost.margin

    def _is_stale(self, places: Places, now: float) -> bool:
        """Return whether nothing is known that could be relied upon."""
        return not places.alive or (not len(places) and now - self._ended > STALE)

"""Whether a request can still make its deadline: asked once, before the request is queued.

A refusal at once is worth more than an answer that comes too late: a client that is refused can go
elsewhere. So the queue holds only requests that can be answered in time, also when more requests
come than the model can answer.

A request is refused if `now + wait + reserve > deadline`; where no batch runs, without the reserve.
The prediction, in seconds, is

    wait = running + ahead + reruns + own + margin

    running   until the first worker has ended all batches that it holds
    ahead     full batches of the rows that are served before the request, and of its own rows,
              divided among the workers that are alive
    reruns    batches that run again by turns with those, counted as batches of one row, divided
              likewise
    own       the last batch, which is not full: the rest of those rows, and the rows that come
              until then and join it (the mean rate of arrivals, and as many more as chance may
              bring: its square root)
    margin    by which answers leave later than batches end (`cost.CostModel`)

Example: one worker, at most 4 rows in a batch, 1 s + 0.25 s per row. A batch of 4 rows began 0.5 s
ago: running = 1.5. Five rows are served before a request of one row, six rows in all: one full
batch, ahead = 2.0, and 2 rows left over. No reruns. At 0.2 rows/s, 0.7 rows are expected within
those 3.5 s, and 0.8 more by chance: 1 row joins, so the last batch has 3 rows, own = 1.75. With
margin = 0.1 the sum is 5.35 s: a deadline 5 s away is refused, one 6 s away is not.

The levels of priority decide which rows are served first, see `levels.Levels.rows_ahead`.

**The reserve.** If more rows come than batches can hold, a request that would only just make its
deadline gives way to a request that comes a little later and has more time left. That costs no
batch a row, and delays that no prediction sees (sockets, a busy loop, the way to the client) make
no answer late. After each full batch of b rows, while which a rows came,

    reserve = max(spare, sure) * estimated seconds of the batch
    spare   = min(1 - b / a, 0.15)     the next batch is filled, on average
    sure    = 1 - b / least            the next batch is filled, though as few rows come as of late

so that enough requests remain to fill the next batch; after a batch that was not full the reserve
is halved. `least` is the fewest rows that came while a batch ran: it falls to fewer rows at once,
and rises by a fiftieth of the difference. Example: a batch of 32 rows runs for 20 ms. Of 40 rows
that come meanwhile, or 30 at the least, 8 are too many: spare = 0.15, a reserve of 3 ms. Of 128
rows, or 100 at the least, sure = 0.68: a reserve of 14 ms, and no stall of the server up to that
length makes an answer late.

**What is not known is not refused.** Sizes that never ran cost nothing, and after a second without
a batch all estimates count as unknown: an estimate that refuses everybody would never be corrected.

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
from batcher.batching.cost import NO_TIMINGS, CostModel, LengthTimings
from batcher.batching.places import Places
from batcher.batching.policies.bulk import BULK
from batcher.batching.policies.policy import Cost, no_cost
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import RERUN_REASONS
from batcher.core.run_sizes import RunSizes
from batcher.errors import PredictedLate

MAX_RETRY_AFTER_S = 60
"""Most seconds that a client is advised to wait: by then everything may be different."""

RATE_WEIGHT = 0.1
"""Weight of the last batch in the moving means of arrivals and batch sizes."""

LEAST_WEIGHT = 0.02
"""Weight of the last batch where the fewest arrivals rise: after a pause of the load it takes some
fifty full batches until requests are refused that the next pause would leave a place for.
"""

MAX_SPARE_SHARE = 0.15
"""Most of a batch's time that a request must have left where the next batch may not be filled: 3 ms
of 20, longer than an answer is on its way.
"""

STALE_AFTER_S = 1.0
"""Seconds without a batch after which all estimates count as unknown."""

NOT_FRESH_REASONS = (BULK, *RERUN_REASONS)
"""Flush reasons of batches whose rows do not count as arrivals.

Bulk rows only fill gaps, and the rows of reruns were admitted before.
"""


class Estimates(NamedTuple):
    """All that was learnt, for people to read.

    Attributes:
        batches: mean rows and mean seconds of batches, one pair for each class of sizes, ascending.
        margin: seconds by which answers leave later than batches end.
        reserve: seconds that a request must have left besides.
        shapes: shapes that batches have had, at most some 64; 0 where rows have one shape.
    """

    batches: list[tuple[float, float]]
    margin: float
    reserve: float
    shapes: int = 0


@mypyc_attr(allow_interpreted_subclasses=True)
class Admission:
    """Learns how long batches take, and refuses requests that would be answered too late.

    Reactor thread.

    Attributes:
        ceiling: how large a batch may be; its scheduler teaches it.
        horizon: seconds within which a full queue is worked off. A request with more time than
            that need not be checked.
        reserve: seconds that a request must have left beyond the prediction.
        mean_batch_rows: rows of a batch, a moving mean; 0 before the first.
        refused_rows: rows that were refused until now, though a free worker without a queue would
            have answered them in time; bulk apart.
    """

    def __init__(
        self,
        cost: CostModel,
        max_batch_size: int,
        max_queue_rows: int,
        jitter: Callable[[], float] = random,
    ) -> None:
        """Learn nothing yet.

        Args:
            cost: how long batches take.
            max_batch_size: most rows of a batch.
            max_queue_rows: most rows that may wait.
            jitter: gives 0 to 1, so that clients refused together come back apart.
        """
        self.ceiling = Ceiling(max_batch_size)
        self._cost = cost
        self._max_queue_rows = max_queue_rows
        self._jitter = jitter
        self._last_end = -inf  # seconds at which the last batch came back
        self._arrival_rate = 0.0  # rows/s that were admitted, a moving mean
        self._arrivals = 0  # rows that were checked since the last batch
        self._mean_arrivals = 0.0  # the same from batch to batch, a moving mean
        self._least_arrivals = 0.0  # the fewest from batch to batch, of late
        self.mean_batch_rows, self.horizon, self.reserve, self.refused_rows = 0.0, inf, 0.0, 0

    def seed(
        self, timings: Iterable[tuple[int, float]], length_timings: LengthTimings = NO_TIMINGS
    ) -> None:
        """Learn from warm-up: rows and seconds of batches, and seconds by the length of rows."""
        self._cost.seed(timings, length_timings)

    def run_with(self, sizes: RunSizes) -> None:
        """Note with how many rows batches run."""
        self._cost.run_sizes = sizes

    def batch_seconds(self, rows: int, group: Hashable) -> float:
        """Return how long a batch of `rows` rows of `group` takes; 0 where nothing is known."""
        return self._cost.seconds(rows, group)

    def estimates(self) -> Estimates:
        """Return all that was learnt."""
        cost = self._cost
        return Estimates(cost.size_classes(), cost.margin, self.reserve, cost.shape_count)

    def note_batch(
        self, batch: Batch, began: float, now: float, seconds: float, failed: bool
    ) -> None:
        """Learn from `batch`, which began at `began`, and for which its worker took `seconds`.

        What is left until `now` is the time by which the batch was late.
        """
        if now > self._last_end > -inf:
            rows = 0 if batch.reason in NOT_FRESH_REASONS else batch.rows
            rate = rows / (now - self._last_end)
            self._arrival_rate += RATE_WEIGHT * (rate - self._arrival_rate)
        self._last_end = now
        self._mean_arrivals += RATE_WEIGHT * (self._arrivals - self._mean_arrivals)
        self._least_arrivals += LEAST_WEIGHT * (self._arrivals - self._least_arrivals)
        self._least_arrivals = min(self._least_arrivals, self._arrivals)
        self.mean_batch_rows += RATE_WEIGHT * (batch.rows - self.mean_batch_rows)
        self._arrivals = 0
        full = batch.rows >= self.ceiling.rows
        self.reserve = self._affordable_reserve(batch) if full else self.reserve / 2
        if not failed:
            late = max(now - began - seconds, 0.0)
            self._cost.add(batch.rows, batch.group, seconds, late)
            # three batches more than the queue: the one that runs, one ready, and the own batch
            most = self.ceiling.rows
            self.horizon = (self._max_queue_rows / most + 3) * self._cost.finish(most)

    def cost(self, places: Places, now: float) -> Cost:
        """Return an estimate of the seconds until a batch that is sent now is answered."""
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
        """Check that `rows` rows of `level` and `group` would be answered by `deadline`.

        Raises PredictedLate otherwise. `reruns` batches wait to be run again.
        """
        self._arrivals += rows
        if self._is_stale(places, now):
            return
        wait = self.wait(queue, places, reruns, rows, level, group, now)
        if now + wait + (self.reserve if places.rows else 0.0) > deadline:
            if queue.takes_turns(level) and now + self._alone(rows, group) <= deadline:
                self.refused_rows += rows
            raise self._too_late(wait, deadline - now)

    def note_full(self, queue: BatchQueue, rows: int, level: int) -> int:
        """Note that `rows` rows of `level` found the `queue` full.

        Returns after how many seconds their client should come back.
        """
        if queue.takes_turns(level):
            self.refused_rows += rows
        return self.retry_after()

    def retry_after(self, seconds: float | None = None) -> int:
        """Return after how many seconds a refused client should come back: at least 1, jittered.

        `seconds` are the seconds that were missing; without, the queue is full.
        """
        missing = min(self.horizon, MAX_RETRY_AFTER_S) if seconds is None else seconds
        return min(max(ceil(missing * (1 + self._jitter())), 1), MAX_RETRY_AFTER_S)

    def _too_late(self, wait: float, left: float) -> PredictedLate:
        """Return the error of a request that has to wait `wait` s, and has `left` s."""
        return PredictedLate(
            f"the request would be answered in about {wait:.3f} s; its deadline is in {left:.3f} s",
            retry_after=self.retry_after(wait - left),
        )

    def _affordable_reserve(self, batch: Batch) -> float:
        """Return the reserve after `batch`, which was full, see the module's formula."""
        came, fit = self._mean_arrivals, self.mean_batch_rows
        if not came:
            return 0.0
        spare = min(1 - fit / came, MAX_SPARE_SHARE)
        sure = 1 - fit / self._least_arrivals if self._least_arrivals else 0.0
        # not of the seconds that this one took: a stall would have all requests refused
        return max(spare, sure, 0.0) * self._cost.seconds(batch.rows, batch.group)

    def wait(
        self,
        queue: BatchQueue,
        places: Places,
        reruns: int,
        rows: int,
        level: int,
        group: Hashable,
        now: float,
    ) -> float:
        """Return in how many seconds `rows` rows would be answered, see the module's formula."""
        seconds, most = self._cost.seconds, self.ceiling.rows
        batches, rest = divmod(queue.rows_ahead(level, rows, now) + rows, most)
        start = places.left(seconds, now) + batches // places.alive * seconds(most, group)
        # what runs again is not known here, so each rerun counts as the least it can be
        start += min(reruns, batches + bool(rest)) // places.alive * seconds(1, group)
        if not rest:
            return start + self._cost.margin
        joining = self._arrival_rate * start
        own = min(rest + int(joining + sqrt(joining)), most)
        return start + seconds(own, group) + self._cost.margin

    def _alone(self, rows: int, group: Hashable) -> float:
        """Return in how many seconds a free worker would answer `rows` rows of `group`."""
        most = self.ceiling.rows
        batches, rest = divmod(rows, most)
        own = self._cost.seconds(rest, group) if rest else 0.0
        return batches * self._cost.seconds(most, group) + own + self._cost.margin

    def _is_stale(self, places: Places, now: float) -> bool:
        """Return whether nothing is known that a prediction could rely upon."""
        return not places.alive or (not len(places) and now - self._last_end > STALE_AFTER_S)


class AdmitAll(Admission):
    """Admits every request and learns nothing; only requests that have expired are dropped."""

    def __init__(self, max_batch_size: int) -> None:
        """Allow batches of `max_batch_size` rows."""
        super().__init__(CostModel(), max_batch_size, max_batch_size)
        self.horizon = -inf  # so no request is ever checked

    def seed(
        self, timings: Iterable[tuple[int, float]], length_timings: LengthTimings = NO_TIMINGS
    ) -> None:
        """Learn nothing."""

    def note_batch(
        self, batch: Batch, began: float, now: float, seconds: float, failed: bool
    ) -> None:
        """Learn nothing."""

    def cost(self, places: Places, now: float) -> Cost:
        """Return an estimate of no time at all."""
        return no_cost

    def retry_after(self, seconds: float | None = None) -> int:
        """Return 1, since nothing is known."""
        return 1

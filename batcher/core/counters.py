"""The numbers behind every metric: plain attributes of plain objects.

A client library's counter costs a lock and a dictionary look-up an increment; at tens of thousands
of requests a second that is a visible share of the loop. Here the reactor thread adds to plain
attributes, once a batch wherever that is possible, and only a scrape (`batcher/serving/metrics.py`)
pays for turning them into the exposition format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Bucket bounds for durations: half a millisecond, a small model on a GPU, up to the default
deadline.
"""

ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Bucket bounds for batch sizes: the powers of two that warm-up uses."""


LAST = 20
"""Batches whose size and reason are kept, for whoever asks why."""


class Histogram:
    """Counts of observations by upper bound. Reactor thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Start empty; `bounds` are ascending upper bounds, inclusive."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count each of `values`."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts by bound, as the exposition format wants them."""
        names = [*(repr(bound) for bound in self.bounds), "+Inf"]
        return [
            (name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)
        ]


class Load(Protocol):
    """What waits and runs at the moment."""

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""

    @property
    def queue_bytes(self) -> int:
        """Bytes of inputs that wait."""

    @property
    def in_flight_rows(self) -> int:
        """Rows that workers hold."""

    @property
    def most_rows(self) -> int:
        """Rows that a batch may have."""


class AnswerMetrics:
    """The numbers of the answers of one model on one route, latency in seconds. Reactor thread."""

    __slots__ = ("latency", "statuses")

    def __init__(self) -> None:
        """Start at zero."""
        self.statuses: dict[int, int] = defaultdict(int)
        self.latency = Histogram(SECONDS)

    def observe(self, status: int, seconds: float) -> None:
        """Count one answered request and its whole latency."""
        self.statuses[status] += 1
        latency = self.latency
        latency.counts[bisect_left(SECONDS, seconds)] += 1
        latency.total += seconds


class Spent:
    """How often something was done, and the seconds of it all together. Reactor thread."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        """Start at zero."""
        self.count = 0
        self.seconds = 0.0

    def add(self, count: int, seconds: float) -> None:
        """Count `count` times that took `seconds` in all."""
        self.count += count
        self.seconds += seconds


class BatchSpent:
    """Where the time of batches of one size went. Reactor thread."""

    __slots__ = ("collating", "predicting", "splitting")

    def __init__(self) -> None:
        """Start at zero."""
        self.collating = Spent()
        self.predicting = Spent()
        self.splitting = Spent()

    def add(self, times: int, collating: float, predicting: float, splitting: float) -> None:
        """Count a batch's seconds `times` times."""
        self.collating.add(times, times * collating)
        self.predicting.add(times, times * predicting)
        self.splitting.add(times, times * splitting)


class Statistics:
    """Cumulative numbers of one version of a model, as the Open Inference Protocol's statistics extension wants them.

    Attributes:
        success: requests that were answered, from arrival to answer.
        fail: requests that ended in another way after they were queued.
        queue: the waits of parts, a request or a piece of one larger than a batch.
        requests: where the time of batches that did not fail went, once for each part in them.
        sizes: the same once for each batch, by its rows.
        rows: of those batches.
        last: when the last batch came back, in seconds on the scheduler's clock; None if none has.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.success = Spent()
        self.fail = Spent()
        self.queue = Spent()
        self.requests = BatchSpent()
        self.sizes: dict[int, BatchSpent] = defaultdict(BatchSpent)
        self.rows = 0
        self.last: float | None = None


class ModelMetrics:
    """The numbers of one version of a model. Reactor thread."""

    def __init__(self, model: str, version: str) -> None:
        """Start at zero; `model` and `version` become labels."""
        self.labels = (model, version)
        self.load: Load | None = None
        self.queue_wait = Histogram(SECONDS)
        self.batch_size = Histogram(ROWS)
        self.model_time = Histogram(SECONDS)
        self.flushes: dict[str, int] = defaultdict(int)
        self.last_batches: deque[tuple[int, str]] = deque(maxlen=LAST)
        self.cancelled_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.expired_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.rejected_rows: dict[str, int] = defaultdict(int)
        self.failed_batches = 0
        self.failed_rows = 0
        self.out_of_memory = 0
        self.statistics = Statistics()

    def count_sent(self, rows: int, reason: str) -> None:
        """Count a batch of `rows` rows that is sent for `reason`."""
        self.flushes[reason] += 1
        self.batch_size.observe(rows)
        self.last_batches.append((rows, reason))

    def count_batch(
        self,
        now: float,
        rows: int,
        waits: list[float],
        compute: float,
        collating: float,
        splitting: float,
    ) -> None:
        """Count a batch of `rows` rows that came back `now` and whose parts had waited `waits`, all in seconds."""
        predicting = compute - collating - splitting
        self.queue_wait.observe_all(waits)
        statistics = self.statistics
        statistics.last = now
        statistics.rows += rows
        statistics.queue.add(len(waits), sum(waits))
        statistics.requests.add(len(waits), collating, predicting, splitting)
        statistics.sizes[rows].add(1, collating, predicting, splitting)

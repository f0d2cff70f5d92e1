"""The numbers behind every metric: plain attributes of plain objects.

A client library's counter costs a lock and a dictionary look-up an increment; at tens of thousands of requests a second
that is a visible share of the loop. Here the reactor thread adds to plain attributes, once a batch wherever that is
possible, and only a scrape (`batcher/metrics.py`) pays for turning them into the exposition format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Bucket bounds for durations: half a millisecond, a small model on a GPU, up to the default deadline."""

ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""Bucket bounds for batch sizes: the powers of two that warm-up uses."""


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
        return [(name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)]


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
        """Rows that a worker holds."""


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
        self.cancelled_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.expired_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.rejected_rows: dict[str, int] = defaultdict(int)
        self.failed_batches = 0

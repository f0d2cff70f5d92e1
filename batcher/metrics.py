"""Every metric, declared once, as plain numbers that a collector exports when it is asked.

A client library's counter costs a lock and a dictionary look-up an increment; at tens of thousands of requests a second
that is a visible share of the loop. Here the reactor thread adds to plain attributes, once a batch wherever that is
possible, and only a scrape pays for turning them into the exposition format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST

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


class ServerMetrics(Collector):
    """All numbers of one server, exported as Prometheus text.

    Attributes:
        answers: by model, which is empty where a route has none, and route.
        connections: how many are open.
    """

    def __init__(self) -> None:
        """Start at zero, with a registry of its own, so that two servers in one process do not clash."""
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.answers: dict[tuple[str, str], AnswerMetrics] = defaultdict(AnswerMetrics)
        self.connections = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def model(self, name: str, version: str) -> ModelMetrics:
        """Return the numbers of a version of a model; the same object for the same version, so counts never restart."""
        return self._models.setdefault((name, version), ModelMetrics(name, version))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by the registry."""
        yield from self._request_families()
        yield from self._load_families()
        yield from self._model_histograms()
        yield from self._model_counters()

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "batcher_requests", "Requests answered, by HTTP status; 499: the client left.", labels=("model", "route", "code")
        )
        for (model, route), answers in self.answers.items():
            for status, count in answers.statuses.items():
                requests.add_metric((model, route, str(status)), count)
        yield requests
        yield _histograms(
            "batcher_request_duration_seconds",
            "From a request's first byte to its answer.",
            ("model", "route"),
            ((labels, answers.latency) for labels, answers in self.answers.items()),
        )
        yield GaugeMetricFamily("batcher_connections", "Open connections.", value=self.connections)

    def _load_families(self) -> Iterator[Metric]:
        gauges = (
            ("batcher_queue_rows", "Rows that wait in the queue.", "queue_rows"),
            ("batcher_queue_bytes", "Bytes of inputs that wait in the queue.", "queue_bytes"),
            ("batcher_in_flight_rows", "Rows that a worker holds.", "in_flight_rows"),
        )
        for name, text, attribute in gauges:
            family = GaugeMetricFamily(name, text, labels=("model", "version"))
            for metrics in self._models.values():
                if metrics.load is not None:
                    family.add_metric(metrics.labels, getattr(metrics.load, attribute))
            yield family

    def _model_histograms(self) -> Iterator[Metric]:
        histograms = (
            ("batcher_queue_wait_seconds", "From arrival to the start of the batch.", "queue_wait"),
            ("batcher_batch_size", "Rows of a batch.", "batch_size"),
            ("batcher_model_seconds", "Time of a batch on its worker, collation included.", "model_time"),
        )
        for name, text, attribute in histograms:
            values = ((metrics.labels, getattr(metrics, attribute)) for metrics in self._models.values())
            yield _histograms(name, text, ("model", "version"), values)

    def _model_counters(self) -> Iterator[Metric]:
        counters = (
            ("batcher_batch_flush", "Batches started, by reason.", "reason", "flushes"),
            ("batcher_cancelled_rows", "Rows whose client left, by where they were.", "stage", "cancelled_rows"),
            ("batcher_expired_rows", "Rows whose deadline passed, by where they were.", "stage", "expired_rows"),
            ("batcher_rejected_rows", "Rows refused on arrival, by reason.", "reason", "rejected_rows"),
        )
        for name, text, label, attribute in counters:
            family = CounterMetricFamily(name, text, labels=("model", "version", label))
            for metrics in self._models.values():
                for value, count in getattr(metrics, attribute).items():
                    family.add_metric((*metrics.labels, value), count)
            yield family
        failed = CounterMetricFamily("batcher_failed_batches", "Batches that raised.", labels=("model", "version"))
        for metrics in self._models.values():
            failed.add_metric(metrics.labels, metrics.failed_batches)
        yield failed


def _histograms(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, histogram in values:
        family.add_metric(label_values, histogram.buckets(), histogram.total)
    return family

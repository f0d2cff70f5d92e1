"""The numbers of versions that share the requests of a model, and their Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from twisted.internet.defer import CancelledError

from batcher.core.counters import DURATION_BOUNDS_S, Histogram
from batcher.errors import BatcherError, Draining
from batcher.serving.counts_by_version import CountsByVersion

MAX_VARIANTS = 200
"""Versions whose numbers are kept, each some 2 KB; models may get a new version each hour."""

_LABELS = ("model", "version")


class VariantCounts:
    """What became of the requests that one version got. Reactor thread.

    Attributes:
        outcomes: requests by outcome, as `outcome_of` names it.
        latency: seconds from the choice of the version to its answer.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: dict[str, int] = defaultdict(int)
        self.latency = Histogram(DURATION_BOUNDS_S)

    def count(self, seconds: float, error: BaseException | None) -> None:
        """Count a request that was answered after `seconds`, or ended with `error`."""
        self.outcomes[outcome_of(error)] += 1
        if error is None:
            self.latency.observe(seconds)


def outcome_of(error: BaseException | None) -> str:
    """Return `ok`, or `failed` where a version may be at fault, else `refused` or `cancelled`."""
    if error is None:
        return "ok"
    if isinstance(error, CancelledError):
        return "cancelled"
    is_refusal = isinstance(error, Draining) or (
        isinstance(error, BatcherError) and error.http_status < 500
    )
    return "refused" if is_refusal else "failed"


class VariantMetrics(CountsByVersion[VariantCounts]):
    """Counts of every version that shares requests. Reactor thread."""

    def __init__(self) -> None:
        """Start without versions."""
        super().__init__(VariantCounts, MAX_VARIANTS)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where no versions share requests."""
        if not self._counts:
            return
        requests = CounterMetricFamily(
            "batcher_variant_requests",
            "Requests that a version got which shares them with others, by outcome.",
            labels=(*_LABELS, "outcome"),
        )
        seconds = HistogramMetricFamily(
            "batcher_variant_seconds",
            "From the choice of the version to its answer.",
            labels=_LABELS,
        )
        for labels, counts in self._counts.items():
            for outcome, count in counts.outcomes.items():
                requests.add_metric((*labels, outcome), count)
            seconds.add_metric(labels, counts.latency.buckets(), counts.latency.total)
        yield requests
        yield seconds

"""The numbers of versions that get copies of requests, and their Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from batcher.core.counters import DURATION_BOUNDS_S, Histogram
from batcher.serving.comparing import Comparison
from batcher.serving.counts_by_version import CountsByVersion

MAX_SHADOWS = 200
"""Shadows whose numbers are kept, each some 3 KB; models may get a new version each hour."""

_LABELS = ("model", "version")


class ShadowCounts:
    """What became of the copies that one version got. Reactor thread.

    Attributes:
        outcomes: copies by outcome: `same`, `different`, `failed`, `dropped` since too many were
            under way, `not_ready` where the version could not answer, `not_compared`.
        rows: rows by what was found, as the fields of Comparison.
        original: seconds that clients waited for the answers which were compared.
        shadow: seconds that the copies of those took.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: dict[str, int] = defaultdict(int)
        self.rows: dict[str, int] = defaultdict(int)
        self.original = Histogram(DURATION_BOUNDS_S)
        self.shadow = Histogram(DURATION_BOUNDS_S)

    def count(self, comparison: Comparison) -> None:
        """Count one copy whose answer was compared."""
        is_same = comparison.equal == comparison.rows
        self.outcomes["same" if is_same else "different"] += 1
        for name, rows in comparison._asdict().items():
            self.rows[name] += rows


class ShadowMetrics(CountsByVersion[ShadowCounts]):
    """Counts of every shadow. Reactor thread."""

    def __init__(self) -> None:
        """Start without shadows."""
        super().__init__(ShadowCounts, MAX_SHADOWS)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where there is no shadow."""
        if self._counts:
            yield from (self._copies(), self._rows(), self._seconds())

    def _copies(self) -> Metric:
        text = "Copies of requests for a version whose answers no client sees, by outcome."
        family = CounterMetricFamily("batcher_shadow_requests", text, labels=(*_LABELS, "outcome"))
        for labels, counts in self._counts.items():
            for outcome, count in counts.outcomes.items():
                family.add_metric((*labels, outcome), count)
        return family

    def _rows(self) -> Metric:
        text = "Rows of those answers: compared, equal, naming a class, and naming the same."
        family = CounterMetricFamily("batcher_shadow_rows", text, labels=(*_LABELS, "found"))
        for labels, counts in self._counts.items():
            for found, count in counts.rows.items():
                family.add_metric((*labels, found), count)
        return family

    def _seconds(self) -> Metric:
        text = "Time of the answers that were compared: of the client's, and of the shadow's."
        family = HistogramMetricFamily("batcher_shadow_seconds", text, labels=(*_LABELS, "answer"))
        for labels, counts in self._counts.items():
            for answer, times in (("client", counts.original), ("shadow", counts.shadow)):
                family.add_metric((*labels, answer), times.buckets(), times.total)
        return family

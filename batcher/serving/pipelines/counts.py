"""The numbers of each step of each pipeline, and their Prometheus families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from batcher.core.counters import DURATION_BOUNDS_S, Histogram
from batcher.serving.counts_by_version import CountsByVersion

MAX_PIPELINES = 200
"""Versions of pipelines whose numbers are kept, each some 1 KB a step."""

_LABELS = ("model", "version", "step")


class StepCounts:
    """What became of the rows that came to one step. Reactor thread.

    Attributes:
        run: rows that the step has answered.
        skipped: rows for which its condition was false.
        dropped: rows whose request ended while the step worked: failed, late or cancelled.
        seconds: from the moment at which the step could begin with a request to its answer.
    """

    __slots__ = ("dropped", "run", "seconds", "skipped")

    def __init__(self) -> None:
        """Start at zero."""
        self.run = 0
        self.skipped = 0
        self.dropped = 0
        self.seconds = Histogram(DURATION_BOUNDS_S)


class PipelineCounts:
    """The counts of all steps of one version of a pipeline. Reactor thread."""

    def __init__(self) -> None:
        """Start without steps."""
        self.steps: dict[str, StepCounts] = {}

    def of(self, step: str) -> StepCounts:
        """Return the counts of `step`."""
        return self.steps.setdefault(step, StepCounts())


class PipelineMetrics(CountsByVersion[PipelineCounts]):
    """Counts of every pipeline. Reactor thread."""

    def __init__(self) -> None:
        """Start without pipelines."""
        super().__init__(PipelineCounts, MAX_PIPELINES)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where there are no pipelines."""
        if not self._counts:
            return
        rows = CounterMetricFamily(
            "batcher_pipeline_rows",
            "Rows that came to a step of a pipeline, by what became of them.",
            labels=(*_LABELS, "outcome"),
        )
        seconds = HistogramMetricFamily(
            "batcher_pipeline_step_seconds",
            "From the moment at which a step could begin with a request to its answer.",
            labels=_LABELS,
        )
        for labels, counts in self._counts.items():
            for step, each in counts.steps.items():
                for outcome in ("run", "skipped", "dropped"):
                    rows.add_metric((*labels, step, outcome), getattr(each, outcome))
                seconds.add_metric((*labels, step), each.seconds.buckets(), each.seconds.total)
        yield rows
        yield seconds

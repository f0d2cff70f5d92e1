"""The numbers of batch jobs, and their Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class JobCounts:
    """Counts of the jobs of one server. Reactor thread.

    Attributes:
        states: called at each export for the number of jobs by state.
        rows: rows of jobs since the start, by outcome: `answered` or `failed`.
    """

    def __init__(self) -> None:
        """Start without jobs."""
        self.states: Callable[[], Mapping[str, int]] = dict
        self.rows: dict[str, int] = defaultdict(int)

    def count(self, rows: int, failed: int) -> None:
        """Count rows that were written, and those of them without an answer."""
        self.rows["answered"] += rows - failed
        self.rows["failed"] += failed

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        jobs = GaugeMetricFamily("batcher_jobs", "Batch jobs, by state.", labels=("state",))
        for state, count in self.states().items():
            jobs.add_metric((state,), count)
        yield jobs
        text = "Rows that batch jobs have written, by outcome."
        rows = CounterMetricFamily("batcher_job_rows", text, labels=("outcome",))
        for outcome, number in self.rows.items():
            rows.add_metric((outcome,), number)
        yield rows

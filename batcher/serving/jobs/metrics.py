"""The numbers of batch jobs, and their Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class JobCounts:
    """Counts of the jobs of one server. Reactor thread.

    Attributes:
        states: called at each export for the number of jobs by state.
        running: called likewise for the rows, and the failed ones among them, of each run that has
            not ended.
        rows: rows of runs that have ended since the start, by outcome: `answered` or `failed`.
    """

    def __init__(self) -> None:
        """Start without jobs."""
        self.states: Callable[[], Mapping[str, int]] = dict
        self.running: Callable[[], Iterable[tuple[int, int]]] = tuple
        self.rows: dict[str, int] = defaultdict(int)

    def count(self, rows: int, failed: int) -> None:
        """Count rows that a run has written, and those of them without an answer."""
        _add(self.rows, rows, failed)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        jobs = GaugeMetricFamily("batcher_jobs", "Batch jobs, by state.", labels=("state",))
        for state, count in self.states().items():
            jobs.add_metric((state,), count)
        yield jobs
        text = "Rows that batch jobs have written, by outcome."
        rows = CounterMetricFamily("batcher_job_rows", text, labels=("outcome",))
        counts = self.rows.copy()
        for written, failed in self.running():
            _add(counts, written, failed)
        for outcome, number in counts.items():
            rows.add_metric((outcome,), number)
        yield rows


def _add(counts: dict[str, int], rows: int, failed: int) -> None:
    counts["answered"] += rows - failed
    counts["failed"] += failed

"""The numbers of files that were fetched for clients, and their Prometheus families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


class FetchCounts:
    """Counts of the files that requests named. Reactor thread.

    Attributes:
        outcomes: files by what became of them: `kept` if no store was asked, `unchanged` if the
            store had no other, `fetched` and `failed`.
        nbytes: bytes of the files that were fetched.
        kept: bytes of the files that are kept.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.outcomes: dict[str, int] = {}
        self.nbytes = 0
        self.kept = 0

    def count(self, outcome: str, nbytes: int = 0) -> None:
        """Count a file, `nbytes` of which came."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.nbytes += nbytes

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where no request has named a file."""
        if not self.outcomes:
            return
        text = "Files that requests named in place of inputs, by outcome."
        files = CounterMetricFamily("batcher_input_files", text, labels=("outcome",))
        for outcome, number in self.outcomes.items():
            files.add_metric((outcome,), number)
        text = "Bytes of files that were fetched in place of inputs."
        yield from (files, CounterMetricFamily("batcher_input_file_bytes", text, self.nbytes))
        text = "Bytes of files that are kept for the next request that names them."
        yield GaugeMetricFamily("batcher_input_cache_bytes", text, self.kept)

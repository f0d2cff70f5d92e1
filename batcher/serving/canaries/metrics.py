"""The numbers of trials, as Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from batcher.serving.canaries.trial import Trial

_LABELS = ("model", "version")


class CanaryMetrics:
    """What trials have decided, and where they are. Reactor thread.

    Attributes:
        trials: the trial of each model, by its name.
    """

    def __init__(self) -> None:
        """Start without trials."""
        self.trials: dict[str, Trial] = {}
        self._decisions: dict[tuple[str, str], int] = defaultdict(int)

    def decided(self, model: str, what: str) -> None:
        """Count a decision about a canary of `model`."""
        self._decisions[model, what] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; none where no model has a canary."""
        if not self.trials:
            return
        decisions = CounterMetricFamily(
            "batcher_canary_decisions", "Decisions about canaries.", labels=("model", "decision")
        )
        for (model, what), count in self._decisions.items():
            decisions.add_metric((model, what), count)
        yield decisions
        share = GaugeMetricFamily(
            "batcher_canary_percent", "Percent of the requests that it gets.", labels=_LABELS
        )
        evidence = GaugeMetricFamily(
            "batcher_canary_evidence",
            "Natural logarithm of the evidence against it, by test.",
            labels=(*_LABELS, "test"),
        )
        for model, trial in self.trials.items():
            share.add_metric((model, trial.candidate), 100.0 * trial.share)
            for test, found in trial.evidence.items():
                evidence.add_metric((model, trial.candidate, test), found.log)
        yield from (share, evidence)

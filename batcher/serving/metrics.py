"""Every metric, declared once, and exported when a client asks for the metrics.

The numbers themselves are plain attributes in `batcher/core/counters.py`, since the loop counts
many thousand times a second. Only an export turns them into Prometheus' text.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from batcher.core.counters import AnswerMetrics, Histogram, ModelMetrics
from batcher.core.thread_seconds import thread_seconds
from batcher.serving.cache_metrics import CacheMetrics
from batcher.serving.canaries.metrics import CanaryMetrics
from batcher.serving.device_metrics import DeviceMetrics, Pool
from batcher.serving.jobs.metrics import JobCounts
from batcher.serving.pipelines.counts import PipelineMetrics
from batcher.serving.references.metrics import FetchCounts
from batcher.serving.shadow_metrics import ShadowMetrics
from batcher.serving.variant_metrics import VariantMetrics
from batcher.serving.zeromq_metrics import ZeromqMetrics

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST


MAX_ENDED_VERSIONS = 100
"""Versions that serve no more whose numbers are kept. A version takes a few KB, and a server whose
models get a new version each hour ends thousands of them.
"""

_VERSION = ("model", "version")
"""Labels of everything that is counted for each version of a model."""

# Each row: name of the metric, help text, where there is one an own label, and the attribute of
# `ModelMetrics` (of its `load` and `instances` in `_LOADS` and `_INSTANCES`) that holds the number.
_LOADS = (
    ("batcher_queue_rows", "Rows that wait in the queue.", "queue_rows"),
    ("batcher_queue_bytes", "Bytes of inputs that wait in the queue.", "queue_bytes"),
    ("batcher_in_flight_rows", "Rows that workers hold.", "in_flight_rows"),
    (
        "batcher_batch_ceiling_rows",
        "Rows that a batch may have; fewer once memory was short.",
        "ceiling_rows",
    ),
)
_INSTANCES = (
    ("batcher_instances_wanted", "Instances that are to take batches.", "wanted"),
    ("batcher_instances_ready", "Instances that take batches.", "alive"),
)
_DISTRIBUTIONS = (
    ("batcher_queue_wait_seconds", "From arrival to the start of the batch.", "queue_wait"),
    ("batcher_batch_size", "Rows of a batch.", "batch_size"),
    (
        "batcher_model_seconds",
        "Time of a batch on its worker, collation included.",
        "model_time",
    ),
)
_LABELLED_COUNTS = (
    ("batcher_batch_flush", "Batches started, by reason.", "reason", "flushes"),
    (
        "batcher_cancelled_rows",
        "Rows whose client left, by where they were.",
        "stage",
        "cancelled_rows",
    ),
    (
        "batcher_expired_rows",
        "Rows whose deadline passed, by where they were.",
        "stage",
        "expired_rows",
    ),
    ("batcher_rejected_rows", "Rows refused on arrival, by reason.", "reason", "rejected_rows"),
    (
        "batcher_model_exceptions",
        "Exceptions of the model's own code, by the stage in which they were raised.",
        "stage",
        "exceptions",
    ),
    (
        "batcher_copied_bytes",
        "Bytes of inputs and outputs of batches that were copied to a GPU, from it, and within it.",
        "direction",
        "copied_bytes",
    ),
)
_COUNTS = (
    ("batcher_failed_batches", "Batches that raised, or did not come back.", "failed_batches"),
    (
        "batcher_failed_rows",
        "Rows that failed by themselves in batches that did not.",
        "failed_rows",
    ),
    (
        "batcher_out_of_memory",
        "Batches that did not fit into the device's memory.",
        "out_of_memory",
    ),
    (
        "batcher_recompilations",
        "Times that a part of a model was compiled for a batch after warm-up.",
        "recompilations",
    ),
    ("batcher_graph_replays", "CUDA graphs that were replayed for batches.", "graph_replays"),
    (
        "batcher_padded_rows",
        "Rows that batches were filled up with, up to a number of rows that the model takes.",
        "padded_rows",
    ),
    (
        "batcher_real_elements",
        "Elements of rows in batches whose rows are padded, without padding.",
        "real_elements",
    ),
    (
        "batcher_padded_elements",
        "Elements of batches whose rows are padded, padding included.",
        "padded_elements",
    ),
)


class ServerMetrics(Collector):
    """All numbers of one server, exported as Prometheus text.

    Attributes:
        answers: counts of answers by model, which is empty where a route has none, and route.
        connections: connections that are open.
        dropped_lines: lines that could not be written, by the output that they were for.
        dropped_by_outputs: called at each export for more of such counts.
        buffer_bytes: bytes of bodies and answers that connections hold.
        quota_rejected_rows: rows that were refused, by the name of the quota that was used up.
        reloads: reloads of the settings, by outcome.
        changes: changes of a watched repository, by outcome.
        last_reload_successful: whether the last reload was applied; true before the first.
        variants: counts of versions that share the requests of a model.
        shadows: counts of versions that get copies of requests.
        caches: counts of versions whose answers are kept.
        canaries: where trials of new versions are, and what they have decided.
        pipelines: counts of the steps of pipelines.
        jobs: counts of batch jobs.
        devices: memory and use of the machine's GPUs.
        zeromq: counts of ZeroMQ's clients.
        loop_seconds: gives the seconds for which the thread that calls it, the loop's, has worked.
    """

    def __init__(self) -> None:
        """Start at zero, with an own registry: two servers in one process do not clash."""
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._ended: dict[tuple[str, str], None] = {}
        self.answers: dict[tuple[str, str], AnswerMetrics] = defaultdict(AnswerMetrics)
        self.connections = 0
        self.dropped_lines: dict[str, int] = defaultdict(int)
        self.dropped_by_outputs: Callable[[], Mapping[str, int]] = dict
        self.buffer_bytes = 0
        self.quota_rejected_rows: dict[str, int] = defaultdict(int)
        self.reloads = {"applied": 0, "refused": 0}
        self.changes = {"applied": 0, "refused": 0}
        self.last_reload_successful = True
        self.variants = VariantMetrics()
        self.shadows = ShadowMetrics()
        self.caches = CacheMetrics()
        self.canaries = CanaryMetrics()
        self.pipelines = PipelineMetrics()
        self.jobs = JobCounts()
        self.devices = DeviceMetrics()
        self.fetches = FetchCounts()
        self.zeromq = ZeromqMetrics()
        self.loop_seconds: Callable[[], float] = thread_seconds
        self._registry = _registry_of(self)

    def model(self, name: str, version: str) -> ModelMetrics:
        """Return the numbers of a version of a model.

        The same object for the same version, so counts do not restart when it is loaded again,
        unless MAX_ENDED_VERSIONS others have ended since.
        """
        self._ended.pop((name, version), None)
        return self._models.setdefault((name, version), ModelMetrics(name, version))

    def ended(self, name: str, version: str) -> None:
        """Note that a version serves no more; forget the one that ended first of too many."""
        counts = self.model(name, version)
        counts.load = counts.instances = None
        counts.history.clear()
        self._ended[name, version] = None
        if len(self._ended) > MAX_ENDED_VERSIONS:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._models[oldest]

    def note(self, now: float, gpus: Pool | None = None) -> None:
        """Keep a mark of the numbers of each version that serves, at `now`.

        `gpus` is where GPUs may be read; None reads none.
        """
        if gpus is not None:
            self.devices.note(now, gpus)
        loop = self.loop_seconds()
        for counts in self._models.values():
            if counts.load is not None:
                counts.history.note(counts.mark(now, loop))

    def reloaded(self, outcome: str) -> None:
        """Count a reload of the settings that was `applied` or `refused`."""
        self.reloads[outcome] += 1
        self.last_reload_successful = outcome == "applied"

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family; called by the registry."""
        yield from self._request_families()
        yield from self._reload_families()
        yield from self._load_families()
        yield from self._model_histograms()
        yield from self._model_counters()
        yield from self.variants.collect()
        yield from self.shadows.collect()
        yield from self.caches.collect()
        yield from self.canaries.collect()
        yield from self.pipelines.collect()
        yield from self.jobs.collect()
        yield from self.devices.collect()
        yield from self.fetches.collect()
        yield from self.zeromq.collect()

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "batcher_requests",
            "Requests answered, by HTTP status; 499: the client left.",
            labels=("model", "route", "code"),
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
        yield from self._connection_families()

    def _connection_families(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("batcher_connections", "Open connections.", value=self.connections)
        text = "Bytes that connections hold, of bodies that come and of answers that are not read."
        yield GaugeMetricFamily("batcher_buffer_bytes", text, value=self.buffer_bytes)
        rejected = CounterMetricFamily(
            "batcher_quota_rejected_rows", "Rows beyond a key's quota.", labels=("quota",)
        )
        for name, count in self.quota_rejected_rows.items():
            rejected.add_metric((name,), count)
        yield rejected
        dropped = CounterMetricFamily(
            "batcher_dropped_lines",
            "Lines of log and access log that could not be written, by output.",
            labels=("output",),
        )
        lines = Counter(self.dropped_lines)
        lines.update(self.dropped_by_outputs())
        for output, count in lines.items():
            dropped.add_metric((output,), count)
        yield dropped

    def _reload_families(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "batcher_reloads", "Reloads of the settings, by outcome.", labels=("outcome",)
        )
        for outcome, count in self.reloads.items():
            reloads.add_metric((outcome,), count)
        yield reloads
        what = "Changes of models in a watched repository (watch_repository_s), by outcome."
        changes = CounterMetricFamily("batcher_repository_changes", what, labels=("outcome",))
        for outcome, count in self.changes.items():
            changes.add_metric((outcome,), count)
        yield changes
        text = "Whether the last reload of the settings was applied."
        yield GaugeMetricFamily(
            "batcher_config_last_reload_successful", text, value=self.last_reload_successful
        )

    def _load_families(self) -> Iterator[Metric]:
        for rows, kept in ((_LOADS, "load"), (_INSTANCES, "instances")):
            for name, text, attribute in rows:
                family = GaugeMetricFamily(name, text, labels=_VERSION)
                for metrics in self._models.values():
                    if (numbers := getattr(metrics, kept)) is not None:
                        family.add_metric(metrics.labels, getattr(numbers, attribute))
                yield family

    def _model_histograms(self) -> Iterator[Metric]:
        for name, text, attribute in _DISTRIBUTIONS:
            values = (
                (metrics.labels, getattr(metrics, attribute)) for metrics in self._models.values()
            )
            yield _histograms(name, text, _VERSION, values)

    def _model_counters(self) -> Iterator[Metric]:
        for name, text, label, attribute in _LABELLED_COUNTS:
            family = CounterMetricFamily(name, text, labels=(*_VERSION, label))
            for metrics in self._models.values():
                for value, count in getattr(metrics, attribute).items():
                    family.add_metric((*metrics.labels, value), count)
            yield family
        for name, text, attribute in _COUNTS:
            family = CounterMetricFamily(name, text, labels=_VERSION)
            for metrics in self._models.values():
                family.add_metric(metrics.labels, getattr(metrics, attribute))
            yield family


def _registry_of(metrics: ServerMetrics) -> CollectorRegistry:
    """Return a registry with `metrics` and those of the process."""
    registry = CollectorRegistry()
    registry.register(metrics)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def _histograms(
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], Histogram]],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, histogram in values:
        family.add_metric(label_values, histogram.buckets(), histogram.total)
    return family

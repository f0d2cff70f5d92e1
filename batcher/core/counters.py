"""The numbers behind every metric: plain attributes of plain objects.

The reactor thread adds to these attributes, once a batch wherever that is possible, and only a
scrape (`batcher/serving/metrics.py`) pays for turning them into the exposition format. The counters
of a client library were refused: each increment costs a lock and a dictionary look-up, and at tens
of thousands of requests a second that is a visible share of the loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

from batcher.core.device_work import DeviceWork
from batcher.core.history import History, Mark

_BELOW_A_SECOND = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_UP_TO_A_DAY = (60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
# As a tuple of unknown length: compiled, one of a known length is made anew at each use.
DURATION_BOUNDS_S: tuple[float, ...] = (
    *_BELOW_A_SECOND,
    *(1.0, 2.0, 5.0, 10.0, 30.0),
    *_UP_TO_A_DAY,
)
"""Bucket bounds of durations, in seconds: from half a millisecond, a small model on a GPU, up to a
day, the longest `watchdog_s` and `timeout_ms`. So no duration that a setting allows is beyond all
bounds, where a quantile could not tell it.
"""

BATCH_SIZE_BOUNDS: tuple[float, ...] = (
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
)
"""Bucket bounds of batch sizes, in rows: the powers of two that warm-up uses."""

REMEMBERED_BATCHES = 20
"""Batches whose size and reason are kept, for an operator who asks why batches are as they are."""


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
        """Values that were counted."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts by bound, as the exposition format wants them."""
        names = [*(repr(bound) for bound in self.bounds), "+Inf"]
        return [
            (name, float(count)) for name, count in zip(names, accumulate(self.counts), strict=True)
        ]


class SchedulerLoad(Protocol):
    """What waits and runs in one scheduler at the moment. Reactor thread."""

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""

    @property
    def queue_bytes(self) -> int:
        """Bytes of inputs that wait."""

    @property
    def in_flight_rows(self) -> int:
        """Rows that workers hold."""

    @property
    def ceiling_rows(self) -> int:
        """Rows that a batch may have."""


class InstanceCounts(Protocol):
    """How many instances one model has at the moment. Reactor thread."""

    @property
    def wanted(self) -> int:
        """Instances that are to take batches."""

    @property
    def alive(self) -> int:
        """Instances that take batches."""


class AnswerMetrics:
    """The numbers of the answers of one model on one route, latency in seconds. Reactor thread."""

    __slots__ = ("latency", "statuses")

    def __init__(self) -> None:
        """Start at zero."""
        self.statuses: dict[int, int] = defaultdict(int)
        self.latency = Histogram(DURATION_BOUNDS_S)

    def observe(self, status: int, seconds: float) -> None:
        """Count one answered request and its whole latency."""
        self.statuses[status] += 1
        latency = self.latency
        latency.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        latency.total += seconds


class TimedCount:
    """How often something was done, and the time of it all together. Reactor thread.

    Attributes:
        count: how often.
        seconds: seconds of all times together.
    """

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        """Start at zero."""
        self.count = 0
        self.seconds = 0.0

    def add(self, count: int, seconds: float) -> None:
        """Count `count` times that took `seconds` in all."""
        self.count += count
        self.seconds += seconds


class ComputeTimes:
    """Where the time of batches on their worker went. Reactor thread.

    Attributes:
        compute_input: collating, the inputs of all parts into one buffer.
        compute_infer: the model itself.
        compute_output: splitting, the outputs into rows of each part.
    """

    __slots__ = ("compute_infer", "compute_input", "compute_output")

    def __init__(self) -> None:
        """Start at zero."""
        self.compute_input = TimedCount()
        self.compute_infer = TimedCount()
        self.compute_output = TimedCount()

    def add(self, count: int, collating: float, predicting: float, splitting: float) -> None:
        """Count the seconds of one batch `count` times."""
        self.compute_input.add(count, count * collating)
        self.compute_infer.add(count, count * predicting)
        self.compute_output.add(count, count * splitting)


class Statistics:
    """Cumulative numbers of one version of a model, by the Open Inference Protocol's names.

    The protocol's statistics extension answers each `TimedCount` as `count` and `ns`, nanoseconds;
    here times are seconds. A request larger than a batch is cut into parts, any other is one part.

    | attribute | field of the protocol | counts |
    |---|---|---|
    | `success` | `inference_stats.success` | requests answered, from arrival to answer |
    | `fail` | `inference_stats.fail` | requests that ended otherwise, from arrival to end |
    | `queue` | `inference_stats.queue` | parts, from arrival to the start of their batch |
    | `by_part` | `inference_stats.compute_…` | each batch once for each of its parts |
    | `by_batch_size[rows]` | `batch_stats[].compute_…` | each batch once, by its rows |
    | `inference_count` | the same | rows |
    | `last_inference` | the same, as ms since 1970 | seconds on the scheduler's clock |

    `execution_count` is the sum of the counts in `by_batch_size`. Requests that were refused, and
    so never queued, are not counted; nor are batches that failed, except in `fail`.
    """

    def __init__(self) -> None:
        """Start at zero; `last_inference` is None until the first batch comes back."""
        self.success = TimedCount()
        self.fail = TimedCount()
        self.queue = TimedCount()
        self.by_part = ComputeTimes()
        self.by_batch_size: dict[int, ComputeTimes] = defaultdict(ComputeTimes)
        self.inference_count = 0
        self.last_inference: float | None = None


class ModelMetrics:
    """The numbers of one version of a model. Reactor thread.

    Attributes:
        labels: name and version of the model.
        load: the scheduler's own numbers of this moment, None before there is a scheduler.
        instances: how many instances there are, None while the version does not serve.
        queue_wait: seconds from the arrival of a part to the start of its batch.
        batch_size: rows of the batches that were sent.
        model_time: seconds of the batches on their worker.
        flushes: batches that were sent, by reason.
        last_batches: rows and reason of the batches sent last, oldest first.
        cancelled_rows: rows whose client left, by where they were: `queued` or `in_flight`.
        expired_rows: rows whose deadline passed, likewise.
        rejected_rows: rows refused on arrival, by reason.
        exceptions: exceptions of the model's own code, by the stage in which they were raised:
            `import`, `load`, `warmup`, `preprocess`, `predict` or `postprocess`. A request that the
            model refuses with InvalidInput is none.
        failed_batches: batches that raised, or did not come back.
        failed_rows: rows that failed by themselves in batches that did not.
        out_of_memory: batches that did not fit into the memory of the device.
        recompilations: times that a part of the model was compiled for a batch, after the load.
        graph_replays: CUDA graphs that were replayed.
        padded_rows: rows that batches were filled up with, up to a size that the model takes.
        copied_bytes: bytes of inputs and outputs that were copied to a device and from it, and of
            inputs that lay on the device already.
        real_elements: elements of rows in batches whose rows are padded.
        padded_elements: the same with the padding.
        statistics: numbers for the Open Inference Protocol.
        history: what the numbers were lately.
    """

    def __init__(self, model: str, version: str) -> None:
        """Start at zero; `model` and `version` become labels."""
        self.labels = (model, version)
        self.load: SchedulerLoad | None = None
        self.instances: InstanceCounts | None = None
        self.queue_wait = Histogram(DURATION_BOUNDS_S)
        self.batch_size = Histogram(BATCH_SIZE_BOUNDS)
        self.model_time = Histogram(DURATION_BOUNDS_S)
        self.flushes: dict[str, int] = defaultdict(int)
        self.last_batches: deque[tuple[int, str]] = deque(maxlen=REMEMBERED_BATCHES)
        self.cancelled_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.expired_rows: dict[str, int] = {"queued": 0, "in_flight": 0}
        self.rejected_rows: dict[str, int] = defaultdict(int)
        self.exceptions: dict[str, int] = defaultdict(int)
        self.failed_batches = 0
        self.failed_rows = 0
        self.out_of_memory = 0
        self.recompilations = 0
        self.graph_replays = 0
        self.padded_rows = 0
        self.copied_bytes: dict[str, int] = {"to_device": 0, "to_host": 0, "on_device": 0}
        self.real_elements = 0
        self.padded_elements = 0
        self.statistics = Statistics()
        self.history = History()

    def mark(self, now: float, loop: float) -> Mark:
        """Return the numbers at `now`, when the loop has worked for `loop` seconds."""
        statistics, load = self.statistics, self.load
        success, fail = statistics.success, statistics.fail
        return Mark(
            time=now,
            loop=loop,
            running=load.in_flight_rows if load is not None else 0,
            batches=self.batch_size.count,
            rows=self.batch_size.total,
            ended=self.model_time.count,
            busy=self.model_time.total,
            parts=statistics.queue.count,
            queued=statistics.queue.seconds,
            requests=success.count + fail.count,
            pending=success.seconds + fail.seconds,
            expired=sum(self.expired_rows.values()),
            failed=self.failed_batches,
            real=self.real_elements,
            padded=self.padded_elements,
            flushes=dict(self.flushes),
            refused=dict(self.rejected_rows),
        )

    def count_sent(self, rows: int, reason: str) -> None:
        """Count a batch of `rows` rows that is sent for `reason`."""
        self.flushes[reason] += 1
        self.batch_size.observe(rows)
        self.last_batches.append((rows, reason))

    def count_elements(self, real: int, padded: int) -> None:
        """Count a batch of `real` elements, and `padded` ones with the padding, that is sent."""
        self.real_elements += real
        self.padded_elements += padded

    def count_work(self, work: DeviceWork) -> None:
        """Count what batches that came back have asked of a device."""
        self.graph_replays += work.graph_replays
        self.copied_bytes["to_device"] += work.bytes_to_device
        self.copied_bytes["to_host"] += work.bytes_to_host
        self.copied_bytes["on_device"] += work.bytes_on_device

    def count_batch(
        self,
        now: float,
        rows: int,
        waits: list[float],
        compute: float,
        collating: float,
        splitting: float,
    ) -> None:
        """Count a batch of `rows` rows that came back at `now` and did not fail.

        All times are seconds: `waits` of each part in the queue, then those of the batch on its
        worker, where `compute` includes `collating` and `splitting`.
        """
        predicting = compute - collating - splitting
        self.queue_wait.observe_all(waits)
        statistics = self.statistics
        statistics.last_inference = now
        statistics.inference_count += rows
        statistics.queue.add(len(waits), sum(waits))
        statistics.by_part.add(len(waits), collating, predicting, splitting)
        statistics.by_batch_size[rows].add(1, collating, predicting, splitting)

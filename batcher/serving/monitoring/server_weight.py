"""How much of its usual load this server should get: what a balancer in front is told.

The weight is a percentage. A server that answers as soon as it should gets all of its usual load:

    weight   = 100 % / lateness^3        at least 1 %; of several models, the lowest counts
    lateness = wait / expected           at least 1
    expected = 2 * seconds of a batch at warm-up, with as many rows as batches have had lately

Two batches, since a request that comes to a busy server waits for the batch that runs, and for its
own. Without a warm-up, the model's `slo_ms` is expected. Less than 10 ms is never expected: on the
way through a balancer nobody would notice.

    wait = max(backlog * pace, recent)
    backlog  in how many seconds one more row would be answered, by what batches have taken
    recent   seconds of a batch since the look before; where none came back, the time for which the
             batch that runs has run
    pace     recent / seconds of such a batch as learnt, at least 1: what was learnt follows slowly

Example: batches of 20 ms at warm-up, so 40 ms are expected. Batches now take 200 ms: lateness is 5
or more, and the weight 100 / 125, so the least, 1 %. At 50 ms lateness is 1.25, the weight 51 %.

Weights of several servers are only worth something beside each other, so nothing that one server
has learnt by itself is expected: servers that have run for a week and one that was started a minute
ago would expect different times. A machine that is slower from the start has a lower weight of its
own in the balancer's configuration.

The third power, since of the requests that a slow server answers, all are late: with a plain ratio
a server that takes five times as long would still have a fifth of the load of the others, and the
99th percentile of all clients would be its time. Never 0 % for a slow one: it has to get requests
to show that it is fast again, and if all servers are slow, some server must answer.

A weight falls at once, and rises to at most four times as much in a second, so that load which has
left does not come back all at once to a server that has only been idle. 0 % is a server that is not
ready or is about to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import ceil, inf
from typing import Protocol

from batcher.batching.cost import Curve
from batcher.core.counters import ModelMetrics
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import ModelVersion

LOOK_INTERVAL_S = 0.2
"""Seconds between two looks: a balancer asks each quarter of a second, and strangers as often as
they like.
"""

LEAST_EXPECTED_S = 0.01
EXPECTED_BATCHES = 2
STEEPNESS = 3
LEAST_PERCENT = 1
FULL_PERCENT = 100
RISE_PER_S = 4.0
LONGEST_RISE_S = 10.0
"""Seconds of rise that count: after them any weight may be full."""


class Waiting(Protocol):
    """How far behind a model is, in seconds; `batching.backlog` has one. Reactor thread."""

    def wait_s(self) -> float:
        """Return in how many seconds one more row would be answered."""

    def stuck_s(self) -> float:
        """Return for how many seconds the batch that began last has run; 0 if a worker is free."""

    def batch_s(self, rows: int) -> float:
        """Return how many seconds a batch of `rows` rows takes, as learnt; 0 if unknown."""


class Models(Protocol):
    """The models of a server; `ModelServer` is one. Reactor thread."""

    metrics: ServerMetrics
    seconds: Callable[[], float]

    @property
    def ending(self) -> bool:
        """Whether the server is about to end."""

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""

    def unready(self) -> dict[str, str]:
        """Return title and reason of every model that should serve and does not."""


class Lateness:
    """How many times longer than expected requests of one version wait. Reactor thread."""

    def __init__(
        self,
        timings: Mapping[int, float],
        fallback_s: float,
        waiting: Waiting,
        metrics: ModelMetrics,
    ) -> None:
        """Begin to look.

        Args:
            timings: seconds that warm-up took for a batch, by its rows.
            fallback_s: seconds within which to answer where there are no timings.
            waiting: how far behind the version is.
            metrics: its counters.
        """
        self._usual = Curve()
        for rows, seconds in timings.items():
            self._usual.add(rows, seconds)
        self._fallback_s = fallback_s if not timings else 0.0
        self._waiting = waiting
        self._metrics = metrics
        self._rows = 1  # of a batch, lately
        self._counts = self._counted()

    def look(self) -> float:
        """Return the lateness, at least 1, by what has happened since the look before."""
        then, now = self._counts, self._counted()
        self._counts = now
        grown = [after - before for before, after in zip(then, now, strict=True)]
        sent, rows, ended, failed, busy = grown
        if sent:
            self._rows = ceil(rows / sent)
        return max(self._wait_s(ended, failed, busy) / self._expected_s(), 1.0)

    def _wait_s(self, ended: float, failed: float, busy: float) -> float:
        waiting = self._waiting
        backlog = waiting.wait_s()
        if not ended:
            return max(backlog, waiting.stuck_s())
        # A model that fails at once is not fast: its failures count with the time of the others.
        recent = busy / (ended - failed) if ended > failed else inf
        learnt = waiting.batch_s(self._rows)
        return max(backlog * max(recent / learnt, 1.0) if learnt else 0.0, recent)

    def _expected_s(self) -> float:
        usual = EXPECTED_BATCHES * self._usual.seconds(self._rows)
        return max(usual, self._fallback_s, LEAST_EXPECTED_S)

    def _counted(self) -> tuple[float, ...]:
        """Return batches sent, their rows, batches that ended, that failed, and their seconds."""
        metrics = self._metrics
        sent, ended = metrics.batch_size, metrics.model_time
        return sent.count, sent.total, ended.count, metrics.failed_batches, ended.total


class ServerWeight:
    """The weight of one server, worked out when somebody asks. Reactor thread."""

    def __init__(self, models: Models) -> None:
        """Look at nothing yet."""
        self._models = models
        self._looked = -inf
        self._ready = False
        self._percent = float(FULL_PERCENT)
        self._each: dict[ModelVersion, Lateness] = {}

    def percent(self) -> int:
        """Return the weight, 0 to 100; 0 where the server is not ready or about to end."""
        now = self._models.seconds()
        if now - self._looked >= LOOK_INTERVAL_S:
            self._look(min(now - self._looked, LONGEST_RISE_S))
            self._looked = now
        if self._models.ending or not self._ready:
            return 0
        return max(round(self._percent), LEAST_PERCENT)

    def _look(self, passed: float) -> None:
        """Work out the weight, `passed` seconds after the look before."""
        self._ready = not self._models.unready()
        self._each = {each: self._lateness(each) for each in self._models if _counts(each)}
        late = max((each.look() for each in self._each.values()), default=1.0)
        most = max(self._percent, LEAST_PERCENT) * RISE_PER_S**passed
        self._percent = min(FULL_PERCENT / late**STEEPNESS, most)

    def _lateness(self, version: ModelVersion) -> Lateness:
        known = self._each.get(version)
        if known is not None:
            return known
        metrics = self._models.metrics.model(*version.key)
        slo_s = version.settings.slo_ms / 1e3
        return Lateness(version.timings, slo_s, version.scheduler.backlog, metrics)


def _counts(version: ModelVersion) -> bool:
    """Return whether `version` runs batches of its own; a pipeline has those of its models."""
    return version.accepts and version.definition.plan is None

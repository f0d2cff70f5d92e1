"""Quotas in rows: each key has a token bucket, and all requests without a known key share one.

A bucket holds at most a burst of rows and is refilled continuously. A request of more rows than a
bucket can ever hold is let in when the bucket is full, and leaves the bucket in debt. To refuse
such a request for good would be wrong: its rows are not too many, only too many at once, and every
`Retry-After` would be a promise that is not kept. So the rows let in during any t seconds are

    rows(t) <= burst + rate * t        (plus what one last request has beyond the burst)

With a rate of 10 rows/s and a burst of 20 rows, at most 50 rows are let in during 3 s.

Rows are charged before a request is queued. The server gives them back where it refuses the request
itself, at once or while the request waits. A client that leaves, or whose deadline passes, has used
its rows: else the client could fill the queue for nothing.

Quotas are no authentication: an unknown key is as good as none. Keys are secrets and stay in this
module; only the names of quotas appear in errors and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.config.quota import Quota
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.errors import BatcherError, InvalidInput, QuotaExceeded, Unavailable
from batcher.serving.metrics import ServerMetrics
from batcher.serving.stages.stage import GoOn, Stage

CLOCK_GRAIN_S = 1e-6
"""Seconds too early that a request may come. Clocks that count from 1970 are no finer, and a client
that waited exactly as long as `Retry-After` said is let in.
"""


class Bucket:
    """The rows that one quota has left. Times are seconds on one clock. Reactor thread.

    Attributes:
        name: of the quota, for metrics.
    """

    __slots__ = ("_at", "_burst", "_left", "_rate", "name")

    def __init__(self, name: str, rate: float, burst: float) -> None:
        """Start full; `rate` in rows/s, `burst` in rows."""
        self.name = name
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def charge(self, rows: int, now: float) -> None:
        """Take `rows` out, at the time `now`.

        Raises QuotaExceeded, and takes nothing, if the bucket has too few rows.
        """
        # The clock of some reactors is the system's, which may be set back.
        elapsed = max(now - self._at, 0.0)
        self._left = min(self._left + elapsed * self._rate, self._burst)
        self._at = now
        wait = (min(rows, self._burst) - self._left) / self._rate
        if wait > CLOCK_GRAIN_S:
            most = f"{self._rate:g} rows/s and {self._burst:g} at once"
            raise QuotaExceeded(
                f"quota: expected at most {most}; got {rows} more",
                retry_after=max(ceil(wait - CLOCK_GRAIN_S), 1),
            )
        self._left -= rows

    def give_back(self, rows: int) -> None:
        """Put back `rows` that were charged and did not run."""
        self._left += rows


class Quotas:
    """Which bucket a key is charged to. Reactor thread."""

    def __init__(self, quotas: Mapping[str, Quota]) -> None:
        """Start with full buckets for `quotas`, as `config.yaml` has them.

        By key; `*` stands for all other requests together.
        """
        self._buckets = {
            key: Bucket(quota.name or f"quota-{number}", quota.rows_per_s, quota.burst)
            for number, (key, quota) in enumerate(quotas.items(), 1)
        }
        self._others = self._buckets.pop("*", None)

    def of(self, key: str) -> Bucket | None:
        """Return the bucket that `key` is charged to; None where nothing limits that key.

        Raises InvalidInput: `key` is several keys.
        """
        bucket = self._buckets.get(key)
        if bucket is not None:
            return bucket
        # No key of a configuration holds a space; header fields that came twice are joined by one.
        if " " in key:
            raise InvalidInput(
                "X-Api-Key, or Authorization: Bearer: expected one key; got several, or one with a "
                "space in it"
            )
        return self._others


class QuotaStage(Stage):
    """Charges the rows of each request to the quota of its key. Reactor thread."""

    reads_key: ClassVar[bool] = True

    def __init__(
        self, quotas: Quotas, metrics: ServerMetrics, seconds: Callable[[], float]
    ) -> None:
        """Charge to `quotas` by the clock `seconds`; count refusals in `metrics`."""
        self._quotas = quotas
        self._metrics = metrics
        self._seconds = seconds

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Have `go_on` answer `request` if the quota of its key has its rows.

        Raises:
            QuotaExceeded: the quota has too few rows.
            InvalidInput: the request names several keys.
        """
        key = request.parameters.key
        bucket = self._quotas.of(key) if key is not None else None
        if bucket is None:
            return go_on(request)
        self._charge(bucket, request.rows)
        try:
            return go_on(request).addErrback(_give_back_unrun, bucket, request.rows)
        except BatcherError:
            bucket.give_back(request.rows)
            raise

    def _charge(self, bucket: Bucket, rows: int) -> None:
        try:
            bucket.charge(rows, self._seconds())
        except QuotaExceeded:
            self._metrics.quota_rejected_rows[bucket.name] += rows
            raise


def _give_back_unrun(failure: Failure, bucket: Bucket, rows: int) -> Failure:
    # Only the error of a request that surely did not run carries Retry-After.
    if isinstance(failure.value, Unavailable) and failure.value.retry_after:
        bucket.give_back(rows)
    return failure


def quotas_of(quotas: Mapping[str, Quota]) -> Quotas | None:
    """Return the `quotas` of a configuration; None where there are none."""
    return Quotas(quotas) if quotas else None

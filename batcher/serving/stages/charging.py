"""A request's rows and the quota of its key.

Charged before it is queued, given back if it does not run.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.errors import BatcherError, QuotaExceeded, Unavailable
from batcher.serving.metrics import ServerMetrics
from batcher.serving.stages.quotas import Bucket, Quotas


def charged(
    request: InferenceRequest,
    quotas: Quotas,
    metrics: ServerMetrics,
    now: float,
    answer: Callable[[InferenceRequest], Deferred[InferenceResponse]],
) -> Deferred[InferenceResponse]:
    """Answer `request` by `answer` if the quota of its key, at the time `now` in seconds, has its rows. Reactor thread.

    They are given back where the server refuses the request, at once or while it waits. A client
    that leaves, or whose deadline passes, has used them: else it could fill the queue for nothing.

    Raises:
        QuotaExceeded: it has not.
        InvalidInput: it names several keys.
    """
    key = request.parameters.key
    bucket = quotas.of(key) if key is not None else None
    if bucket is None:
        return answer(request)
    try:
        bucket.charge(request.rows, now)
    except QuotaExceeded:
        metrics.quota_rejected_rows[bucket.name] += request.rows
        raise
    try:
        return answer(request).addErrback(_refused, bucket, request.rows)
    except BatcherError:
        bucket.give_back(request.rows)
        raise


def _refused(failure: Failure, bucket: Bucket, rows: int) -> Failure:
    if (
        isinstance(failure.value, Unavailable) and failure.value.retry_after
    ):  # told only to who surely did not run
        bucket.give_back(rows)
    return failure

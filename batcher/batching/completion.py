"""Every way in which a request ends; each request ends in exactly one of them.

    way      reason                                     its Deferred fires with
    answer   all of its rows came back                  the response
    fail     its batch or its row failed, or the        the error
             server ends all requests
    expire   its deadline has passed, or would have     DeadlineExceeded or PredictedLate
             before an answer
    cancel   its client left                            CancelledError, by Twisted itself

A request is `finished` from the moment its Deferred is about to fire. All that comes for a finished
request later (rows from the worker, its deadline, its cancellation) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy

from batcher.batching.batch import Batch
from batcher.batching.failure_log import FailureLog
from batcher.batching.part import Part
from batcher.batching.pending_request import PendingRequest, owner
from batcher.batching.queue import BatchQueue
from batcher.batching.worker import Outcome
from batcher.core.counters import ModelMetrics, TimedCount
from batcher.core.error_text import without_stacks
from batcher.errors import (
    BatcherError,
    ClientError,
    DeadlineExceeded,
    PredictedLate,
    Unavailable,
    WorkerLost,
)
from batcher.models.model_errors import is_fault, model_error


class Completions:
    """Ends the requests of one scheduler. Reactor thread.

    Attributes:
        pending: number of requests that have not ended.
    """

    def __init__(
        self, queue: BatchQueue, metrics: ModelMetrics, seconds: Callable[[], float], version: str
    ) -> None:
        """Remove ended requests from `queue`, count in `metrics`, name `version` in answers.

        `seconds` gives the time.
        """
        self._queue = queue
        self._metrics = metrics
        self._seconds = seconds
        self._version = version
        self._log = FailureLog("/".join(metrics.labels))
        self.pending = 0

    def answer(self, batch: Batch, outcome: Outcome) -> None:
        """Answer each request in `batch` with its own rows, or with the error of one of them."""
        started = batch.bound_at + outcome.waited
        compute, rows, version, now = outcome.compute, batch.rows, self._version, self._seconds()
        waits = [started - part.arrival for part in batch.parts]
        self._metrics.count_batch(now, rows, waits, compute, outcome.collating, outcome.splitting)
        failed = self._failed_parts(batch, outcome.failed) if outcome.failed else {}
        for part, result, wait in zip(batch.parts, outcome.results, waits, strict=True):
            pending = owner(part)
            if pending.deadline < now:
                self.expire(pending)
            elif part in failed:
                self.fail(pending, failed[part])
            try:
                answer = (
                    None
                    if pending.finished
                    else pending.receive(part, result, version, wait, compute, rows)
                )
            except Exception as err:  # NumPy's too: no memory, dtypes that do not go together
                self.fail(pending, model_error(err))
                continue
            if answer is not None:
                self._finish(pending, self._metrics.statistics.success)
                pending.deferred.callback(answer)

    def fail_parts(self, parts: Sequence[Part], error: BaseException) -> None:
        """End every request that has one of `parts`, of a batch that failed with `error`."""
        if not isinstance(error, ClientError):  # a request that the model refuses is no fault
            rows = sum(part.rows for part in parts)
            self._log.write(f"{rows} rows of a batch failed", error, self._seconds())
        client_error = model_error(error)
        # whose stack holds on to the arrays of the whole batch
        without_stacks(error)
        for part in parts:
            self.fail(owner(part), client_error)

    def note_rerun(self, batch: Batch, error: BaseException) -> None:
        """Mark the requests in `batch`, which runs again after `error`, if they may have run."""
        if not isinstance(error, WorkerLost) or error.begun:
            for part in batch.parts:
                owner(part).has_run = True

    def fail(self, pending: PendingRequest, error: BatcherError) -> None:
        """End a request with `error`, unless it has ended."""
        if not pending.finished:
            for part in pending.parts:
                self._queue.remove(part)
            self._finish(pending, self._metrics.statistics.fail)
            pending.deferred.errback(_without_advice(pending, error))

    def expire(self, pending: PendingRequest) -> None:
        """End a request that cannot be answered by its deadline, unless it has ended."""
        if pending.finished:
            return
        queued = pending.drop(self._queue, self._metrics.expired_rows)
        self._finish(pending, self._metrics.statistics.fail)
        late: BatcherError = DeadlineExceeded(
            f"the deadline passed while the request {'waited' if queued else 'ran'}"
        )
        if self._seconds() < pending.deadline:
            # a client may repeat only what surely did not run, not even in part
            may_repeat = queued == pending.rows
            late = PredictedLate(
                "the request could no longer be answered by its deadline",
                retry_after=int(may_repeat),
            )
        pending.deferred.errback(late)

    def cancel(self, pending: PendingRequest) -> None:
        """End a request whose Deferred is being cancelled: Twisted fires it right after this."""
        pending.drop(self._queue, self._metrics.cancelled_rows)
        self._finish(pending, self._metrics.statistics.fail)

    def check_invariants(self, parts: Iterable[Part]) -> None:
        """Assert that requests are counted and leave the queue; for tests.

        `parts` are all parts that wait or run.
        """
        assert self.pending == len(
            {pending for pending in map(owner, parts) if not pending.finished}
        )
        assert all(not owner(part).finished for part in self._queue), (
            "finished requests leave the queue"
        )

    def _failed_parts(
        self, batch: Batch, errors: Mapping[int, BaseException]
    ) -> dict[Part, BatcherError]:
        """Return the parts with a row in `errors`, each with the error for its client."""
        self._metrics.failed_rows += len(errors)
        if faults := [error for error in errors.values() if is_fault(error)]:
            self._metrics.exceptions["predict"] += len(faults)
            what = f"{len(faults)} of {batch.rows} rows failed by themselves, the first of them so"
            self._log.write(what, faults[0], self._seconds())
        failed: dict[Part, BatcherError] = {}
        start = 0
        for part in batch.parts:
            row = next((row for row in range(start, start + part.rows) if row in errors), None)
            if row is not None:
                failed[part] = model_error(errors[row])
            start += part.rows
        for error in errors.values():
            without_stacks(error)
        return failed

    def _finish(self, pending: PendingRequest, count: TimedCount) -> None:
        count.add(1, self._seconds() - pending.arrival)
        pending.finish()
        self.pending -= 1


def _without_advice(pending: PendingRequest, error: BatcherError) -> BatcherError:
    """Return `error`, without the advice to try again if any part of the request has run."""
    if pending.has_run and isinstance(error, Unavailable):
        error = copy(error)
        error.retry_after = 0
    return error

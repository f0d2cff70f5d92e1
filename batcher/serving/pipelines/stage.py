"""The last stage of a pipeline: it answers by the steps, where a model has its queue.

A pipeline is a version of a model like any other: it has a name, versions, labels, quotas and a
state. Only its requests go another way: through this stage, which never goes on to the queue
behind it. The stage bounds the rows and bytes of requests on their way as a queue does, so that a
pipeline in front of slow models refuses requests at the door and not after half of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from twisted.internet.defer import CancelledError, Deferred

from batcher.batching.failure_log import FailureLog
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, InferenceResponse, nbytes_of
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, DeadlineExceeded, ModelNotReady, QueueFull, TooLarge
from batcher.models.model_errors import is_fault
from batcher.serving.pipelines.graph import Graph
from batcher.serving.pipelines.run import Run, Surroundings
from batcher.serving.stages.stage import GoOn, Stage
from batcher.workers.pool import CpuPool


class PipelineStage(Stage):
    """Answers the requests of one version of a pipeline. Reactor thread.

    Attributes:
        graph: how requests are answered now; None until the pipeline is loaded.
        rows: rows of the requests on their way.
    """

    reads_client: ClassVar[bool] = True
    reads_freshness: ClassVar[bool] = True

    def __init__(
        self,
        title: str,
        settings: ModelSettings,
        pool: CpuPool,
        seconds: Callable[[], float],
        metrics: ModelMetrics,
    ) -> None:
        """Answer for the pipeline `title`, at most as many rows at once as `settings` say."""
        self.graph: Graph | None = None
        self.rows = 0
        self._title = title
        self._seconds = seconds
        self._metrics = metrics
        self._log = FailureLog(title)
        self._max_rows, self._max_bytes = settings.max_queue_rows, settings.max_queue_bytes
        self._timeout = settings.timeout
        levels = (settings.bulk_level, settings.default_priority)
        self._around = Surroundings(pool, seconds, *levels, self._step_failed, self._ended)
        self._nbytes = 0
        self._requests = 0
        self._drained = Waiters()

    def infer(self, request: InferenceRequest, go_on: GoOn) -> Deferred[InferenceResponse]:
        """Answer `request` by the steps; fails with the error of the first step that fails.

        Raises QueueFull or TooLarge: the rows are too many; ModelNotReady: not loaded.
        """
        graph = self.graph
        if graph is None:
            raise ModelNotReady(f"pipeline {self._title} is not loaded")
        nbytes, now = nbytes_of(request.inputs), self._seconds()
        self._admit(request.rows, nbytes)
        deadline = request.parameters.deadline
        if deadline is None:
            deadline = now + self._timeout
        self.rows += request.rows
        self._nbytes += nbytes
        self._requests += 1
        return Run(graph, request, nbytes, now, deadline, self._around).begin()

    def drain(self) -> Deferred[None]:
        """Fire when no request is on its way."""
        drained = self._drained.wait()
        self._release_if_drained()
        return drained

    def _admit(self, rows: int, nbytes: int) -> None:
        most, most_bytes = self._max_rows, self._max_bytes
        error: BatcherError
        if rows > most or nbytes > most_bytes:
            error = TooLarge(
                f"expected at most {most} rows and {most_bytes} bytes, what the pipeline can ever "
                f"hold; got {rows} rows and {nbytes} bytes"
            )
        elif self.rows + rows > most or self._nbytes + nbytes > most_bytes:
            error = QueueFull(
                f"the pipeline is full: {self.rows} of {most} rows, {self._nbytes} of {most_bytes} "
                "bytes are on their way"
            )
        else:
            return
        self._metrics.rejected_rows[error.code] += rows
        raise error

    def _ended(self, rows: int, nbytes: int, began: float, error: BaseException | None) -> None:
        """Hear of the end of a request, as `Surroundings.ended` says."""
        self.rows -= rows
        self._nbytes -= nbytes
        self._requests -= 1
        now, statistics = self._seconds(), self._metrics.statistics
        if error is not None:
            statistics.fail.add(1, now - began)
            self._count_failure(error, rows)
        else:
            statistics.success.add(1, now - began)
            statistics.inference_count += rows
            statistics.last_inference = now
        self._release_if_drained()

    def _count_failure(self, error: BaseException, rows: int) -> None:
        if isinstance(error, CancelledError):
            self._metrics.cancelled_rows["in_flight"] += rows
        elif isinstance(error, DeadlineExceeded):
            self._metrics.expired_rows["in_flight"] += rows

    def _step_failed(self, step: str, error: BaseException) -> None:
        """Count and log what the author's code, or a built-in step, has raised."""
        if is_fault(error):
            self._metrics.exceptions["postprocess"] += 1
            self._log.write(f"step {step} failed for a request", error, self._seconds())

    def _release_if_drained(self) -> None:
        if self._requests == 0:
            self._drained.release()

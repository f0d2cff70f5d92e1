"""A scheduler wired for tests.

Its clock, queue, policy and worker in one place, single-stepped and checked at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.batching.admission import Admission, AdmitAll
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.options import SchedulerOptions
from batcher.batching.part import Part
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import Cost, Policy, no_cost
from batcher.batching.queue import BatchQueue
from batcher.batching.ragged_cuts import RaggedCuts
from batcher.batching.scheduler import BatchScheduler
from batcher.batching.worker import Condition
from batcher.core.counters import ModelMetrics
from batcher.core.padding import Padding
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.serving.assembly import shape_key
from batcher.workers.instances import Instances
from batcher.workers.memory import MemoryWorker
from tests.support.models import Predict, RecordingModel, checked, double, model_spec, rows, tensor

NEVER = float("inf")
FREE_SPEC = model_spec(inputs=(tensor("x", shape=(-1,)),), outputs=(tensor("y", shape=(-1,)),))
"""Rows of any width, so that two widths are two groups."""


def part(
    rows: int = 1,
    group: Hashable = "a",
    level: int = 1,
    arrival: float = 0.0,
    deadline: float = NEVER,
    nbytes: int | None = None,
) -> Part:
    """Return a part without inputs; it has 10 bytes a row unless told."""
    return Part({}, rows, 10 * rows if nbytes is None else nbytes, group, level, arrival, deadline)


def queue_of(
    *parts: Part, weight: Callable[[int], float] = lambda level: 1.0, **more: Any
) -> BatchQueue:
    """Return a roomy queue with `parts` in it; `more` as it is made with."""
    queue = BatchQueue(10_000, 1_000_000, weight, **more)
    for each in parts:
        queue.add(each)
    return queue


# a frozen value
def request(values: Array, parameters: Parameters = Parameters()) -> InferenceRequest:  # noqa: B008
    """Return a request for the rows `values` of input `x`."""
    return InferenceRequest("m", "1", {"x": values}, len(values), parameters)


class Answer:
    """What a request's Deferred fired with.

    Attributes:
        deferred: to be cancelled.
        fired: every result it ever had; one, if all is well.
    """

    def __init__(self, deferred: Deferred[InferenceResponse]) -> None:
        """Listen to `deferred` and handle its failure."""
        self.deferred = deferred
        self.fired: list[InferenceResponse | Failure] = []
        deferred.addBoth(self.fired.append)

    @property
    def waiting(self) -> bool:
        """Whether nothing has come yet."""
        return not self.fired

    @property
    def response(self) -> InferenceResponse:
        """The one response."""
        (result,) = self.fired
        assert isinstance(result, InferenceResponse), result
        return result

    @property
    def values(self) -> list[float]:
        """The first element of each row of the response."""
        return [float(row[0]) for row in self.response.outputs["y"]]

    @property
    def error(self) -> BaseException:
        """The one error."""
        (result,) = self.fired
        assert isinstance(result, Failure), result
        assert result.value is not None
        return result.value


class NotingWorker(MemoryWorker):
    """A memory worker that notes what it is handed."""

    events: list[str]

    def do(self, batch: Batch) -> None:
        """Note and hold `batch`."""
        super().do(batch)
        self.events.append(f"handed {batch.rows}")


class FixedCost(Admission):
    """Lets everybody in, and estimates what it is told to."""

    def __init__(self, cost: Cost, max_batch_size: int) -> None:
        super().__init__(CostModel(), max_batch_size, 1)
        self._fixed = cost

    def check(self, *arguments: Any) -> None:
        """Let it in."""

    def cost(self, places: object, now: float) -> Cost:
        """Return the fixed one."""
        return self._fixed


class Harness:
    """One scheduler and everything around it.

    Attributes:
        events: what happened, in order: `handed 3` when the worker got a batch, and whatever a test
            adds.
        soon: what is to be called in the loop's next turn.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        max_batch_size: int = 4,
        max_rows: int = 1000,
        max_bytes: int = 1_000_000,
        weight: Callable[[int], float] = lambda level: 1.0,
        ageing: float = NEVER,
        smaller_first: float = 0.0,
        bulk_level: int = 0,
        cuts: RaggedCuts | None = None,
        predict: Predict = double,
        spec: ModelSpec = FREE_SPEC,
        places: int = 2,
        timeout: float = 32.0,
        cost: Cost = no_cost,
        soon: bool = False,
        isolate: bool = False,
        retry: bool = False,
        remembered: float = 0.0,
        instances: int = 1,
    ) -> None:
        """Wire a scheduler; eager unless told.

        `cuts`: rows are padded, as `spec` says. `soon`: the loop's own turns are used, not the
        clock's.
        """
        self.events: list[str] = []
        self.soon: list[Callable[[], None]] = []
        self.clock = Clock()
        self.model = RecordingModel(spec, predict)
        self.workers = Instances([self._worker() for _ in range(instances)])
        self.worker, *self.others = self.workers
        self.queue = BatchQueue(
            max_rows,
            max_bytes,
            weight,
            ageing=ageing,
            smaller_first=smaller_first,
            bulk_level=bulk_level,
            cuts=cuts,
        )
        self.metrics = ModelMetrics("m", "1")
        followed = policy or Eager(max_batch_size)
        admission = (
            AdmitAll(followed.max_batch_size)
            if cost is no_cost
            else FixedCost(cost, max_batch_size)
        )
        self.scheduler = BatchScheduler(
            self.queue,
            followed,
            [*self.workers],
            self.clock,
            self.metrics,
            options=SchedulerOptions(
                pipeline_depth=places,
                timeout=timeout,
                isolate=isolate,
                retry_on_crash=retry,
                remember_failed_s=remembered,
            ),
            group_key=Padding(spec).group_of if cuts is not None else shape_key,
            admission=admission,
            call_soon=self.soon.append if soon else None,
        )
        self.workers.start(self.scheduler.deliver, self.scheduler.set_alive, self._changed)

    def _worker(self) -> NotingWorker:
        worker = NotingWorker(checked(self.model), self.clock)
        worker.events = self.events
        return worker

    def _changed(self) -> None:
        """Do as a served model does when its last worker is dead."""
        if self.workers.condition is Condition.DEAD:
            self.scheduler.give_up(f"the model is not ready: {self.workers.reason}", "not ready")

    def submit(self, *values: float, width: int = 4, **parameters: Any) -> Answer:
        """Submit one row of `width` elements for each of `values`."""
        answer = self.resubmit(*values, width=width, **parameters)
        self.check()
        return answer

    def resubmit(self, *values: float, width: int = 4, **parameters: Any) -> Answer:
        """Submit from inside an answer, in the middle of a step, when nothing can be checked."""
        return Answer(
            self.scheduler.submit(request(rows(*values, width=width), Parameters(**parameters)))
        )

    def turn(self, seconds: float = 0.0) -> None:
        """Let the loop turn once, or for so long."""
        calls, self.soon[:] = self.soon[:], []
        for call in calls:
            call()
        self.clock.advance(seconds)
        self.check()

    def perform(self) -> list[float]:
        """Let the worker run its oldest batch; return the first element of each of its rows."""
        self.worker.perform()
        self.check()
        return [float(row[0]) for row in self.model.batches[-1]["x"]]

    def finish(self) -> None:
        """Let the worker run until nothing is left to do."""
        self.turn()
        while self.worker.batches:
            self.worker.perform()
            self.turn()

    def cancel(self, answer: Answer) -> None:
        """Give up a request."""
        answer.deferred.cancel()
        self.check()

    def check(self) -> None:
        """Assert what always holds."""
        self.scheduler.check_invariants()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Requests that are not answered, rows that wait, rows that the worker holds."""
        return self.scheduler.pending, self.scheduler.queue_rows, self.scheduler.in_flight_rows


def own_rows(number: int, count: int, width: int) -> Array:
    """Return `count` rows that no other request has: request number, then the row's number."""
    values = np.full((count, width), float(number), dtype=np.float32)
    values[:, -1] = np.arange(count)
    return values

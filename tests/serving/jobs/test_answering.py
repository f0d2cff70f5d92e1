"""Rows of a job as requests: what becomes of a request that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.core.portions import Group
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.errors import (
    BatcherError,
    DeviceLost,
    Draining,
    ModelError,
    QueueFull,
    UnknownModel,
    WorkerLost,
)
from batcher.serving.jobs.answering import MAX_LOST_WORKERS, Answering, Outcome


class Model:
    """Answers or fails as its function says.

    Attributes:
        requests: the values of each request.
    """

    def __init__(self, failing: Callable[[list[float]], BatcherError | None]) -> None:
        self.requests: list[list[float]] = []
        self._failing = failing

    def infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        values = inputs["x"].ravel().tolist()
        self.requests.append(values)
        error = self._failing(values)
        if error is not None:
            return fail(error)
        return succeed(InferenceResponse("m", "1", {"y": inputs["x"] * 2}, 0, 0, 1))


def group(rows: int) -> Group:
    return Group(range(rows), {"x": np.arange(rows, dtype="f4").reshape(rows, 1)})


def asked(model: Model, clock: Clock, rows: int = 8) -> list[Outcome | Failure]:
    ended: list[Outcome | Failure] = []
    Answering(model.infer, clock).answer(group(rows)).addBoth(ended.append)
    return ended


def test_a_row_that_fails_is_found_and_the_others_are_answered() -> None:
    model = Model(lambda values: ModelError("no fives") if 5 in values else None)
    (outcome,) = asked(model, Clock())
    assert isinstance(outcome, Outcome)
    assert list(outcome.errors) == [5]
    answered = sorted(row for answer in outcome.answers for row in answer.rows)
    assert answered == [0, 1, 2, 3, 4, 6, 7]
    assert [len(values) for values in model.requests] == [8, 4, 4, 2, 1, 1, 2]


def test_a_server_that_is_full_is_asked_again_later_each_time() -> None:
    clock = Clock()
    model = Model(lambda _: QueueFull("full") if len(model.requests) < 4 else None)
    ended = asked(model, clock, 1)
    for seconds, requests in ((0.1, 2), (0.2, 3), (0.4, 4)):
        assert ended == []
        clock.advance(seconds)
        assert len(model.requests) == requests
    assert isinstance(ended[0], Outcome)


def test_rows_that_end_each_worker_count_as_what_ends_it() -> None:
    clock = Clock()
    model = Model(lambda values: WorkerLost("gone") if 1 in values else None)
    ended = asked(model, clock, 2)
    while not ended:
        clock.advance(10)
    (outcome,) = ended
    assert isinstance(outcome, Outcome)
    assert list(outcome.errors) == [1]
    assert model.requests.count([0.0, 1.0]) == MAX_LOST_WORKERS


@pytest.mark.parametrize("error", [DeviceLost("gone"), Draining("ends"), UnknownModel("which?")])
def test_what_is_no_fault_of_the_rows_ends_the_job(error: BatcherError) -> None:
    (ended,) = asked(Model(lambda _: error), Clock())
    assert isinstance(ended, Failure)
    assert ended.value is error


def test_a_wait_for_another_attempt_can_be_cancelled() -> None:
    clock = Clock()
    sent = Answering(Model(lambda _: QueueFull("full")).infer, clock).answer(group(1))
    ended: list[object] = []
    sent.addErrback(ended.append)
    sent.cancel()
    assert len(ended) == 1
    assert clock.getDelayedCalls() == []


def test_a_request_that_was_refused_all_night_can_be_cancelled() -> None:
    clock = Clock()
    model = Model(lambda _: QueueFull("full"))
    ended: list[Outcome | Failure] = []
    asked = Answering(model.infer, clock).answer(group(2)).addBoth(ended.append)
    for _ in range(3000):
        clock.advance(10)
    assert len(model.requests) == 3001
    asked.cancel()
    (failure,) = ended
    assert isinstance(failure, Failure)
    assert failure.check(CancelledError)
    assert clock.getDelayedCalls() == []

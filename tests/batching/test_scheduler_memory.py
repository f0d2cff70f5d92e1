"""What is left of a request when it has ended.

Nothing, and at once, without waiting for the garbage collector.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from batcher.batching.worker import Condition
from batcher.core.request import Parameters
from batcher.core.spec import Array
from batcher.errors import WorkerLost
from tests.support.models import rows
from tests.support.scheduling import Answer, Harness, request


@pytest.fixture(autouse=True)
def _no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Sent:
    """A request whose input is watched."""

    def __init__(self, harness: Harness, count: int, **parameters: float) -> None:
        values = rows(*range(count))
        self.input: weakref.ref[Array] = weakref.ref(values)
        self.answer = Answer(harness.scheduler.submit(request(values, Parameters(**parameters))))


COUNTS = pytest.mark.parametrize("count", [1, 5], ids=["whole", "cut"])


@COUNTS
def test_an_answered_request_lets_go_of_its_input(count: int) -> None:
    harness = Harness(max_batch_size=2)
    sent = Sent(harness, count)
    harness.finish()
    assert len(sent.answer.values) == count
    assert sent.input() is None


@COUNTS
def test_a_request_cancelled_in_the_queue_lets_go_of_its_input(count: int) -> None:
    harness = Harness(max_batch_size=2)
    sent = Sent(harness, count)
    harness.cancel(sent.answer)
    assert sent.input() is None


@COUNTS
def test_a_request_that_expired_in_the_queue_lets_go_of_its_input(count: int) -> None:
    harness = Harness(max_batch_size=2, places=1)
    harness.submit(1)
    harness.turn()
    sent = Sent(harness, count, deadline=8.0)
    harness.turn(9.0)
    assert not sent.answer.waiting
    assert sent.input() is None


@COUNTS
def test_a_request_that_ended_in_flight_lets_go_of_its_input_when_its_batch_comes_back(
    count: int,
) -> None:
    harness = Harness(max_batch_size=2, places=1)
    sent = Sent(harness, count, deadline=8.0)
    harness.turn()
    harness.turn(9.0)
    assert not sent.answer.waiting
    harness.finish()
    assert sent.input() is None


@COUNTS
def test_a_request_whose_batch_failed_lets_go_of_its_input(count: int) -> None:
    harness = Harness(max_batch_size=2, predict=lambda inputs: {})
    sent = Sent(harness, count)
    harness.finish()
    assert "expected output 'y'" in str(sent.answer.error)
    sent.answer.fired.clear()  # a traceback holds on to what was on the stack
    assert sent.input() is None


def test_a_request_that_ran_again_when_the_last_worker_died_lets_go_of_its_input() -> None:
    def fail(inputs: Mapping[str, Array]) -> dict[str, Any]:
        raise ValueError("a bad row")

    harness = Harness(predict=fail, isolate=True, places=1)
    sent, _ = Sent(harness, 1), harness.submit(7)
    harness.turn()
    harness.perform()
    assert harness.metrics.flushes["isolate"] == 1, "the one that is watched runs alone"
    harness.worker.lose(Condition.DEAD, "gone")
    assert isinstance(sent.answer.error, WorkerLost)
    sent.answer.fired.clear()  # a traceback holds on to what was on the stack
    assert sent.input() is None


def test_a_lone_answer_does_not_hold_on_to_its_request() -> None:
    harness = Harness()
    sent = Sent(harness, 1)
    harness.finish()
    response = sent.answer.response
    assert sent.input() is None
    assert response.outputs["y"].shape == (1, 4)

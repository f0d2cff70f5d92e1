"""Requests that run one at a time: in order, whatever they raise, and whoever leaves."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from batcher.core.request import InferenceResponse
from batcher.errors import ModelError, QueueFull
from batcher.serving.stages.alone import Alone


class Runs:
    """Requests that have begun, by number."""

    def __init__(self) -> None:
        self.begun: dict[int, Deferred[InferenceResponse]] = {}

    def start(self, number: int) -> Deferred[InferenceResponse]:
        self.begun[number] = Deferred()
        return self.begun[number]


def answer_of(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def test_a_request_begins_when_the_one_before_it_is_answered() -> None:
    alone, runs = Alone(8), Runs()
    first, second, third = (alone.run(partial(runs.start, number)) for number in range(3))
    assert list(runs.begun) == [0]
    runs.begun[0].callback("a")  # type: ignore[arg-type]
    assert list(runs.begun) == [0, 1]
    runs.begun[1].errback(ModelError("b"))
    assert list(runs.begun) == [0, 1, 2]
    runs.begun[2].callback("c")  # type: ignore[arg-type]
    assert answer_of(first) == "a"
    assert answer_of(second).check(ModelError)
    assert answer_of(third) == "c"


def test_a_thousand_requests_that_fail_at_once_are_answered() -> None:
    alone, runs = Alone(5000), Runs()

    def refuse() -> Deferred[InferenceResponse]:
        raise QueueFull("the pool is full")

    first = alone.run(partial(runs.start, 0))
    others = [alone.run(refuse) for _ in range(5000)]
    last = alone
    runs.begun[0].callback("a")  # type: ignore[arg-type]
    assert answer_of(first) == "a"
    assert all(answer_of(other).check(QueueFull) for other in others)
    with pytest.raises(QueueFull, match="the pool"):
        last.run(refuse)
    assert not last.run(partial(runs.start, 1)).called


def test_more_than_the_queue_may_hold_are_refused() -> None:
    alone, runs = Alone(1), Runs()
    alone.run(partial(runs.start, 0))
    alone.run(partial(runs.start, 1))
    with pytest.raises(QueueFull, match="at most 1 requests that wait"):
        alone.run(partial(runs.start, 2))


def test_a_client_that_leaves_gives_up_its_turn() -> None:
    alone, runs = Alone(8), Runs()
    running, waiting, last = (alone.run(partial(runs.start, number)) for number in range(3))
    waiting.cancel()
    assert answer_of(waiting).check(CancelledError)
    running.cancel()
    assert answer_of(running).check(CancelledError)
    assert list(runs.begun) == [0, 2]
    last.cancel()
    assert answer_of(last).check(CancelledError)
    assert answer_of(runs.begun[2]) is None, "cancelled, and its result is nobody's"
    alone.run(partial(runs.start, 3))
    assert list(runs.begun) == [0, 2, 3]


def test_a_hook_of_a_client_that_left_does_not_run_within_the_turn_of_the_next() -> None:
    alone, runs, ran = Alone(8), Runs(), list[str]()
    first = alone.run(partial(runs.start, 0))
    late = alone.in_turn(lambda: ran.append("first"))  # waits for a thread
    alone.run(partial(runs.start, 1))
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    alone.in_turn(lambda: ran.append("second"))()
    with pytest.raises(CancelledError):
        late()
    assert ran == ["second"]

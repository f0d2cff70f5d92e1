"""Requests that run one at a time: in order, whatever they raise, and whoever leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from batcher.core.request import InferenceResponse
from batcher.errors import DeadlineExceeded, ModelError, QueueFull
from batcher.serving.stages.alone import Alone


class Runs:
    """Requests that have begun, by number."""

    def __init__(self) -> None:
        self.begun: dict[int, Deferred[InferenceResponse]] = {}

    def start(self, number: int) -> Deferred[InferenceResponse]:
        self.begun[number] = Deferred()
        return self.begun[number]


def alone_of(
    most: int,
    clock: Clock | None = None,
    computed: Callable[[], Deferred[None]] = lambda: succeed(None),
) -> Alone:
    return Alone(most, clock or Clock(), computed)


def run(
    alone: Alone, start: Callable[[], Deferred[InferenceResponse]], deadline: float = inf
) -> Deferred[InferenceResponse]:
    return alone.run(start, deadline)


def answer_of(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def test_a_request_begins_when_the_one_before_it_is_answered() -> None:
    alone, runs = alone_of(8), Runs()
    first, second, third = (run(alone, partial(runs.start, number)) for number in range(3))
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
    alone, runs = alone_of(5000), Runs()

    def refuse() -> Deferred[InferenceResponse]:
        raise QueueFull("the pool is full")

    first = run(alone, partial(runs.start, 0))
    others = [run(alone, refuse) for _ in range(5000)]
    last = alone
    runs.begun[0].callback("a")  # type: ignore[arg-type]
    assert answer_of(first) == "a"
    assert all(answer_of(other).check(QueueFull) for other in others)
    with pytest.raises(QueueFull, match="the pool"):
        run(last, refuse)
    assert not run(last, partial(runs.start, 1)).called


def test_more_than_the_queue_may_hold_are_refused() -> None:
    alone, runs = alone_of(1), Runs()
    run(alone, partial(runs.start, 0))
    run(alone, partial(runs.start, 1))
    with pytest.raises(QueueFull, match="at most 1 requests that wait"):
        run(alone, partial(runs.start, 2))


def test_a_client_that_leaves_gives_up_its_turn() -> None:
    alone, runs = alone_of(8), Runs()
    running, waiting, last = (run(alone, partial(runs.start, number)) for number in range(3))
    waiting.cancel()
    assert answer_of(waiting).check(CancelledError)
    running.cancel()
    assert answer_of(running).check(CancelledError)
    assert list(runs.begun) == [0, 2]
    last.cancel()
    assert answer_of(last).check(CancelledError)
    assert answer_of(runs.begun[2]) is None, "cancelled, and its result is nobody's"
    run(alone, partial(runs.start, 3))
    assert list(runs.begun) == [0, 2, 3]


def test_a_hook_of_a_client_that_left_does_not_run_within_the_turn_of_the_next() -> None:
    alone, runs, ran = alone_of(8), Runs(), list[str]()
    first = run(alone, partial(runs.start, 0))
    late = alone.in_turn(lambda: ran.append("first"))  # waits for a thread
    run(alone, partial(runs.start, 1))
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    alone.in_turn(lambda: ran.append("second"))()
    with pytest.raises(CancelledError):
        late()
    assert ran == ["second"]


def test_a_request_that_waits_is_answered_by_its_deadline() -> None:
    clock, runs = Clock(), Runs()
    alone = alone_of(8, clock)
    times = (inf, 2.0, 1.0, 3.0)
    answers = [run(alone, partial(runs.start, each), time) for each, time in enumerate(times)]
    answers[1].addErrback(lambda failure: (answers[2].cancel(), failure)[1])
    clock.advance(2)
    assert answer_of(answers[1]).check(DeadlineExceeded)
    assert answer_of(answers[2]).check(CancelledError)
    assert list(runs.begun) == [0]
    runs.begun[0].callback("a")  # type: ignore[arg-type]
    assert list(runs.begun) == [0, 3]
    assert clock.getDelayedCalls() == []


def test_the_next_request_begins_at_the_end_of_the_batch_of_one_that_was_answered_before() -> None:
    batch: Deferred[None] = Deferred()
    alone, runs = alone_of(8, computed=lambda: batch), Runs()
    first, _ = (run(alone, partial(runs.start, number)) for number in range(2))
    first.cancel()
    assert answer_of(first).check(CancelledError)
    assert list(runs.begun) == [0], "the model computes still"
    batch.callback(None)
    assert list(runs.begun) == [0, 1]

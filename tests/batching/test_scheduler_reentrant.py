"""Callbacks that turn round and use the scheduler from inside their answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from batcher.errors import DeadlineExceeded, Draining, PredictedLate
from tests.support.scheduling import Answer, Harness


def then(answer: Answer, act: Callable[[], Any]) -> None:
    """Have `act` done from inside the answer, whatever it is."""
    answer.deferred.addBoth(lambda _: act())


def test_an_answer_may_submit_the_next_request() -> None:
    harness = Harness()
    answers = [harness.submit(1)]
    then(answers[0], lambda: answers.append(harness.resubmit(2)))
    harness.turn()
    harness.perform()
    assert harness.counts == (1, 1, 0)
    harness.finish()
    assert [answer.values for answer in answers] == [[2], [4]]


def test_requests_submitted_from_the_answers_of_one_batch_share_the_next() -> None:
    harness = Harness()
    for value in (1, 2, 3):
        then(harness.submit(value), lambda value=value: harness.resubmit(10 + value))
    harness.finish()
    assert harness.model.sizes() == [3, 3]


def test_an_answer_may_cancel_its_neighbour_in_the_same_batch() -> None:
    harness = Harness()
    first, second, third = (harness.submit(value) for value in (1, 2, 3))
    then(first, second.deferred.cancel)
    harness.turn()
    harness.perform()
    assert (first.values, third.values) == ([2], [6])
    assert isinstance(second.error, CancelledError)
    assert harness.counts == (0, 0, 0)


def test_an_answer_may_cancel_what_waits() -> None:
    harness = Harness(max_batch_size=1)
    first, second, third, fourth = (harness.submit(value) for value in (1, 2, 3, 4))
    then(first, fourth.deferred.cancel)
    harness.finish()
    assert (first.values, second.values, third.values) == ([2], [4], [6])
    assert isinstance(fourth.error, CancelledError)
    assert harness.model.sizes() == [1, 1, 1]


def test_an_answer_may_cancel_a_piece_of_what_shares_its_batch() -> None:
    harness = Harness(max_batch_size=2)
    large, small = harness.submit(1, 2, 3), harness.submit(4)
    then(large, small.deferred.cancel)
    harness.finish()
    assert large.values == [2, 4, 6]
    assert isinstance(small.error, CancelledError)


def test_an_answer_may_start_a_drain_that_ends_after_its_neighbours() -> None:
    harness = Harness()
    first, second = harness.submit(1), harness.submit(2)

    def drain() -> None:
        harness.scheduler.drain().addCallback(lambda _: harness.events.append("drained"))

    then(first, drain)
    then(second, lambda: harness.events.append("second"))
    harness.turn()
    waiting = harness.submit(3)
    harness.perform()
    assert harness.events == ["handed 2", "handed 1", "second"]
    harness.perform()
    assert harness.events[-1] == "drained"
    assert waiting.values == [6]


def test_an_answer_may_give_everything_up() -> None:
    harness = Harness(max_batch_size=2)
    first, neighbour, running, waiting = (harness.submit(value) for value in (1, 2, 3, 4))
    harness.turn()
    late = harness.submit(5)
    then(first, lambda: harness.scheduler.fail_all(Draining("stopped")))
    harness.perform()
    harness.finish()
    assert first.values == [2]
    for answer in (running, waiting, late):
        assert isinstance(answer.error, Draining)
    assert len(neighbour.fired) == 1
    assert harness.counts == (0, 0, 0)


def test_an_error_may_submit_again() -> None:
    harness = Harness(predict=lambda inputs: {})
    answers = [harness.submit(1)]
    then(answers[0], lambda: answers.append(harness.resubmit(2)))
    harness.finish()
    assert [type(answer.error).__name__ for answer in answers] == ["ModelContractError"] * 2


def test_what_expires_may_submit_cancel_and_drain() -> None:
    harness = Harness()
    harness.submit(0)
    harness.turn()
    first, second, third = (harness.submit(value, deadline=8.0) for value in (1, 2, 3))
    answers: list[Answer] = []
    ended: list[None] = []
    then(first, second.deferred.cancel)
    then(first, lambda: answers.append(harness.resubmit(4)))
    then(third, lambda: harness.scheduler.drain().addCallback(ended.append))
    harness.turn(8.0)
    assert isinstance(first.error, DeadlineExceeded)
    assert isinstance(second.error, CancelledError)
    assert isinstance(third.error, DeadlineExceeded)
    harness.finish()
    assert answers[0].values == [8]
    assert ended == [None]


def test_what_is_given_up_before_a_batch_may_drain_while_that_batch_is_being_sent() -> None:
    harness = Harness(max_batch_size=2, cost=lambda rows, group: float(rows))
    hopeless, good = harness.submit(1, deadline=1.0), [harness.submit(value) for value in (2, 3, 4)]
    then(hopeless, harness.scheduler.drain)
    harness.turn()
    harness.finish()
    assert isinstance(hopeless.error, PredictedLate)
    assert [answer.values for answer in good] == [[4], [6], [8]]


def test_a_cancellation_may_submit_into_the_place_it_frees() -> None:
    harness = Harness(max_rows=1)
    answers = [harness.submit(1)]
    then(answers[0], lambda: answers.append(harness.resubmit(2)))
    harness.cancel(answers[0])
    harness.finish()
    assert answers[1].values == [4]


def test_an_answer_s_callback_that_raises_harms_nobody() -> None:
    harness = Harness()
    first, second = harness.submit(1), harness.submit(2)
    heard: list[object] = []
    first.deferred.addCallback(lambda _: 1 / 0).addErrback(heard.append)
    harness.finish()
    assert second.values == [4]
    assert len(heard) == 1


@pytest.mark.parametrize("retries", [5])
def test_a_client_that_tries_again_at_once_after_its_deadline_gets_an_answer_each_time(
    retries: int,
) -> None:
    harness = Harness()
    harness.submit(0)
    harness.turn()
    answers: list[Answer] = []

    def try_again() -> None:
        if len(answers) < retries:
            answers.append(harness.resubmit(len(answers), deadline=harness.clock.seconds()))
            then(answers[-1], try_again)

    try_again()
    for _ in range(retries):
        harness.turn()
    assert [type(answer.error) for answer in answers] == [DeadlineExceeded] * retries

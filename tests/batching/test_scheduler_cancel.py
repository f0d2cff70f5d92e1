"""Cancellation: what waits is freed at once, what runs is dropped on return, others unharmed."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from batcher.errors import QueueFull
from tests.support.scheduling import Harness


def test_a_request_cancelled_while_queued_never_reaches_the_model_and_is_counted() -> None:
    harness = Harness()
    first, gone, last = harness.submit(1), harness.submit(2, 3), harness.submit(4)
    harness.cancel(gone)
    assert isinstance(gone.error, CancelledError)
    assert harness.counts == (2, 2, 0)
    assert harness.metrics.cancelled_rows == {"queued": 2, "in_flight": 0}
    harness.turn()
    assert harness.perform() == [1, 4]
    assert (first.values, last.values) == ([2], [8])
    assert harness.metrics.batch_size.total == 2


def test_a_queue_emptied_by_cancellation_sends_nothing() -> None:
    harness = Harness()
    harness.cancel(harness.submit(1))
    harness.turn()
    assert harness.events == []
    assert harness.counts == (0, 0, 0)


def test_the_place_of_a_cancelled_request_is_free_at_once() -> None:
    harness = Harness(max_rows=2)
    waiting = harness.submit(1, 2)
    with pytest.raises(QueueFull):
        harness.submit(3)
    harness.cancel(waiting)
    harness.submit(3)


def test_one_of_two_in_flight_is_cancelled_and_the_other_still_answered() -> None:
    harness = Harness()
    gone, stays = harness.submit(1), harness.submit(2)
    harness.turn()
    harness.cancel(gone)
    assert isinstance(gone.error, CancelledError)
    assert harness.counts == (1, 0, 2), "the worker still has both rows"
    assert harness.metrics.cancelled_rows == {"queued": 0, "in_flight": 1}
    harness.perform()
    assert stays.values == [4]
    assert len(gone.fired) == 1
    assert harness.counts == (0, 0, 0)


def test_the_second_of_two_in_flight_is_cancelled_and_the_first_still_answered() -> None:
    harness = Harness()
    stays, gone = harness.submit(1), harness.submit(2)
    harness.turn()
    harness.cancel(gone)
    harness.perform()
    assert stays.values == [2]
    assert isinstance(gone.error, CancelledError)


def test_a_batch_whose_clients_all_left_is_followed_by_the_next() -> None:
    harness = Harness()
    gone = [harness.submit(1), harness.submit(2)]
    harness.turn()
    after = harness.submit(3)
    for answer in gone:
        harness.cancel(answer)
    harness.finish()
    assert after.values == [6]
    assert harness.counts == (0, 0, 0)


def test_a_cut_request_cancelled_midway_leaves_the_queue_and_is_counted_by_place() -> None:
    harness = Harness(max_batch_size=2, places=1)
    large = harness.submit(1, 2, 3, 4, 5)
    harness.turn()
    assert harness.counts == (1, 3, 2)
    harness.cancel(large)
    assert harness.counts == (0, 0, 2)
    assert harness.metrics.cancelled_rows == {"queued": 3, "in_flight": 2}
    harness.finish()
    assert harness.model.sizes() == [2]


def test_rows_of_a_cut_request_that_came_back_already_are_not_counted_as_in_flight() -> None:
    harness = Harness(max_batch_size=2, places=1)
    large = harness.submit(1, 2, 3, 4, 5)
    harness.turn()
    harness.perform()
    assert harness.counts == (1, 1, 2)
    harness.cancel(large)
    assert harness.metrics.cancelled_rows == {"queued": 1, "in_flight": 2}


def test_cancelling_after_the_answer_changes_nothing() -> None:
    harness = Harness()
    answer = harness.submit(1)
    harness.finish()
    harness.cancel(answer)
    assert answer.values == [2]
    assert harness.metrics.cancelled_rows == {"queued": 0, "in_flight": 0}
    assert harness.counts == (0, 0, 0)


def test_cancelling_twice_counts_once() -> None:
    harness = Harness()
    answer = harness.submit(1)
    harness.cancel(answer)
    harness.cancel(answer)
    assert harness.metrics.cancelled_rows == {"queued": 1, "in_flight": 0}


@pytest.mark.parametrize("when", ["queued", "in flight"])
def test_a_cancelled_request_does_not_expire_later(when: str) -> None:
    harness = Harness()
    answer = harness.submit(1, deadline=8.0)
    if when == "in flight":
        harness.turn()
    harness.cancel(answer)
    harness.turn(9.0)
    assert isinstance(answer.error, CancelledError)
    assert harness.metrics.expired_rows == {"queued": 0, "in_flight": 0}


def test_a_batch_that_fails_does_not_answer_a_request_that_was_cancelled() -> None:
    harness = Harness(predict=lambda inputs: {})
    gone, stays = harness.submit(1), harness.submit(2)
    harness.turn()
    harness.cancel(gone)
    harness.perform()
    assert isinstance(gone.error, CancelledError)
    assert "expected output 'y'" in str(stays.error)

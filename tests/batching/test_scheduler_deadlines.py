"""Deadlines, waiting and in flight.

One 504 each, no device time for what is late, no harm to neighbours.
"""

from __future__ import annotations

import pytest

from batcher.batching.deadlines import DEADLINE_SCAN_INTERVAL_S
from batcher.batching.policies.delay import Delay
from batcher.errors import DeadlineExceeded, PredictedLate
from tests.support.scheduling import Harness
from tests.support.simulation import advance_to_next


def test_a_deadline_that_passes_in_the_queue_is_answered_on_time_without_device_time() -> None:
    harness = Harness()
    running = harness.submit(1)
    harness.turn()
    late = harness.submit(2, 3, deadline=8.0)
    harness.turn(7.0)
    assert late.waiting
    harness.turn(1.0)
    assert isinstance(late.error, DeadlineExceeded)
    assert late.error.http_status == 504
    assert "waited" in str(late.error)
    assert harness.metrics.expired_rows == {"queued": 2, "in_flight": 0}
    assert harness.counts == (1, 0, 1)
    harness.finish()
    assert running.values == [2]
    assert harness.model.sizes() == [1]


def test_a_deadline_that_passes_in_flight_is_answered_on_time_and_its_row_dropped() -> None:
    harness = Harness()
    late, other = harness.submit(1, deadline=8.0), harness.submit(2)
    harness.turn()
    harness.turn(7.0)
    assert late.waiting
    harness.turn(1.0)
    assert isinstance(late.error, DeadlineExceeded)
    assert "ran" in str(late.error)
    assert harness.metrics.expired_rows == {"queued": 0, "in_flight": 1}
    assert harness.counts == (1, 0, 2)
    harness.perform()
    assert other.values == [4]
    assert len(late.fired) == 1
    assert harness.counts == (0, 0, 0)


def test_a_request_without_a_deadline_gets_the_default_timeout() -> None:
    harness = Harness(timeout=16.0)
    harness.turn(4.0)
    answer = harness.submit(1)
    harness.turn()
    harness.turn(15.0)
    assert answer.waiting
    harness.turn(1.0)
    assert isinstance(answer.error, DeadlineExceeded)


def test_a_request_that_is_late_when_it_comes_is_answered_and_never_run() -> None:
    harness = Harness()
    harness.turn(5.0)
    answer = harness.submit(1, deadline=4.0)
    harness.turn()
    assert isinstance(answer.error, DeadlineExceeded)
    assert harness.events == []


def test_deadlines_that_come_in_any_order_are_each_kept() -> None:
    harness = Harness()
    harness.submit(0)
    harness.turn()
    answers = {
        deadline: harness.submit(deadline, deadline=deadline) for deadline in (6.0, 2.0, 4.0)
    }
    for deadline in (2.0, 4.0, 6.0):
        harness.turn(1.0)
        assert answers[deadline].waiting
        harness.turn(1.0)
        assert isinstance(answers[deadline].error, DeadlineExceeded)


def test_deadlines_that_are_close_are_answered_together_at_most_a_grain_late() -> None:
    harness = Harness()
    harness.submit(0)
    harness.turn()
    first, second = (
        harness.submit(1, deadline=8.0),
        harness.submit(2, deadline=8.0 + DEADLINE_SCAN_INTERVAL_S / 2),
    )
    harness.turn(8.0)
    assert isinstance(first.error, DeadlineExceeded)
    harness.turn(DEADLINE_SCAN_INTERVAL_S)
    assert isinstance(second.error, DeadlineExceeded)


def test_what_has_expired_is_not_run_even_between_two_looks_for_it() -> None:
    harness = Harness()
    harness.submit(0)
    harness.turn()
    harness.submit(1, deadline=8.0)
    late, good = harness.submit(2, deadline=8.0 + DEADLINE_SCAN_INTERVAL_S / 4), harness.submit(3)
    harness.turn(8.0)
    harness.turn(DEADLINE_SCAN_INTERVAL_S / 2)
    harness.perform()
    assert isinstance(late.error, DeadlineExceeded)
    assert harness.perform() == [3]
    assert good.values == [6]


def test_a_thousand_deadlines_a_second_wake_the_scheduler_only_so_often() -> None:
    harness = Harness(max_batch_size=2000, max_rows=2000)
    harness.submit(0)
    harness.turn()
    answers = [harness.resubmit(number, deadline=8.0 + number / 1000) for number in range(1000)]
    wakes = 0
    while harness.clock.seconds() < 9.0 + DEADLINE_SCAN_INTERVAL_S:
        advance_to_next(harness.clock)
        wakes += 1
        gone = sum(not answer.waiting for answer in answers)
        assert gone >= (harness.clock.seconds() - 8.0 - DEADLINE_SCAN_INTERVAL_S) * 1000 - 1
        if gone == len(answers):
            break
    assert wakes <= 1.1 / DEADLINE_SCAN_INTERVAL_S
    assert harness.metrics.expired_rows == {"queued": 1000, "in_flight": 0}


def test_one_timer_serves_all_requests() -> None:
    harness = Harness()
    for number in range(100):
        harness.submit(number, deadline=50.0 - number % 7)
        assert len(harness.clock.getDelayedCalls()) == 1
    harness.turn()
    assert len(harness.clock.getDelayedCalls()) == 1


def test_a_cut_request_that_expires_midway_takes_all_its_pieces_along() -> None:
    harness = Harness(max_batch_size=2, places=1)
    large, small = harness.submit(1, 2, 3, 4, deadline=8.0), harness.submit(5)
    harness.turn()
    harness.turn(8.0)
    assert isinstance(large.error, DeadlineExceeded)
    assert harness.metrics.expired_rows == {"queued": 2, "in_flight": 2}
    harness.finish()
    assert small.values == [10]
    assert harness.model.sizes() == [2, 1]


def test_rows_of_a_cut_request_that_came_back_already_are_not_counted_as_in_flight() -> None:
    harness = Harness(max_batch_size=2, places=1)
    harness.submit(1, 2, 3, 4, 5, deadline=8.0)
    harness.turn()
    harness.perform()
    harness.turn(8.0)
    assert harness.metrics.expired_rows == {"queued": 1, "in_flight": 2}


def test_a_result_that_comes_with_the_deadline_ends_the_request_only_once() -> None:
    harness = Harness()
    answer = harness.submit(1, deadline=8.0)
    harness.turn()
    harness.clock.rightNow = 8.0  # the result is here before the timer had its turn
    harness.perform()
    harness.turn()
    assert len(answer.fired) == 1
    assert harness.counts == (0, 0, 0)


def test_heads_that_the_estimate_gives_up_are_answered_and_the_rest_runs() -> None:
    harness = Harness(cost=lambda rows, group: 2.0 * rows)
    hopeless, good = harness.submit(1, deadline=3.0), harness.submit(2, deadline=16.0)
    harness.turn()
    assert isinstance(hopeless.error, PredictedLate)
    assert harness.metrics.expired_rows == {"queued": 1, "in_flight": 0}
    assert harness.perform() == [2]
    assert good.values == [4]


def test_all_heads_are_given_up_together_with_every_piece_they_have() -> None:
    harness = Harness(max_batch_size=2, cost=lambda rows, group: 2.0 * rows)
    hopeless = [harness.submit(1, 2, 3, deadline=3.0), harness.submit(4, deadline=3.0)]
    harness.turn()
    assert all(isinstance(answer.error, PredictedLate) for answer in hopeless)
    assert harness.counts == (0, 0, 0)
    assert harness.metrics.expired_rows == {"queued": 4, "in_flight": 0}
    assert harness.events == []


def test_delay_sends_early_what_would_expire_while_it_waits() -> None:
    harness = Harness(Delay(4, 8.0))
    answer = harness.submit(1, deadline=6.0)
    harness.turn()
    assert harness.metrics.flushes == {"deadline": 1}
    harness.perform()
    assert answer.values == [2]


@pytest.mark.parametrize("policy", [None, Delay(64, 8.0)], ids=["eager", "delay"])
def test_a_device_that_has_nothing_to_do_lets_no_request_expire(policy: Delay | None) -> None:
    harness = Harness(policy, max_batch_size=64)
    answers = [
        harness.submit(index, width=3 + index, deadline=32.0 / (1 + index)) for index in range(8)
    ]
    for _ in range(64):
        harness.turn(0.5)
        while harness.worker.batches:
            harness.perform()
    assert [answer.values for answer in answers] == [[2 * index] for index in range(8)]

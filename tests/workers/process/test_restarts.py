"""When a child that ended is tried again."""

from __future__ import annotations

from batcher.workers.process.restarts import HOPELESS, LONG_LIFE, LONGEST_DELAY, Restarts


def as_it_is(delay: float) -> float:
    return delay


def test_the_first_try_is_at_once_and_the_next_ones_wait_twice_as_long_each_up_to_a_limit() -> None:
    restarts = Restarts(as_it_is)
    delays = [restarts.delay() for _ in range(2000)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[9:11] == [25.6, LONGEST_DELAY]
    assert set(delays[10:]) == {LONGEST_DELAY}


def test_delays_are_jittered() -> None:
    restarts = Restarts(lambda delay: delay / 2)
    assert [restarts.delay() for _ in range(3)] == [0.0, 0.05, 0.1]


def test_a_batch_that_was_run_makes_the_next_try_the_first() -> None:
    restarts = Restarts(as_it_is)
    for _ in range(HOPELESS):
        restarts.ended(0.0)
        restarts.delay()
    assert restarts.hopeless
    restarts.ready(0.0)
    restarts.delivered()
    restarts.ended(0.0)
    assert not restarts.hopeless
    assert restarts.delay() == 0.0


def test_a_long_life_makes_the_next_try_the_first_and_a_short_one_does_not() -> None:
    restarts = Restarts(as_it_is)
    restarts.delay()
    restarts.ready(100.0)
    restarts.ended(100.0 + LONG_LIFE - 0.5)
    assert restarts.delay() == 0.1
    restarts.ready(200.0)
    restarts.ended(200.0 + LONG_LIFE)
    assert restarts.delay() == 0.0


def test_three_lives_in_a_row_without_a_batch_are_hopeless() -> None:
    restarts = Restarts(as_it_is)
    told = []
    for _ in range(HOPELESS):
        told.append(restarts.hopeless)
        restarts.ended(0.0)
    assert told == [False] * HOPELESS
    assert restarts.hopeless

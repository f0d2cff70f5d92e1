"""When a child that ended is tried again."""

from __future__ import annotations

from batcher.workers.process.restarts import (
    FAILURES_UNTIL_DEAD,
    MAX_DELAY_S,
    SOUND_AFTER_S,
    Restarts,
)


def as_it_is(delay: float) -> float:
    return delay


def test_the_first_try_is_at_once_and_the_next_ones_wait_twice_as_long_each_up_to_a_limit() -> None:
    restarts = Restarts(as_it_is)
    delays = [restarts.delay() for _ in range(2000)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[9:11] == [25.6, MAX_DELAY_S]
    assert set(delays[10:]) == {MAX_DELAY_S}


def test_delays_are_jittered() -> None:
    restarts = Restarts(lambda delay: delay / 2)
    assert [restarts.delay() for _ in range(3)] == [0.0, 0.05, 0.1]


def test_a_batch_that_was_run_makes_the_next_try_the_first() -> None:
    restarts = Restarts(as_it_is)
    for _ in range(FAILURES_UNTIL_DEAD):
        restarts.ended(0.0)
        restarts.delay()
    assert restarts.counts_as_dead
    restarts.loaded(0.0)
    restarts.delivered()
    restarts.ended(0.0)
    assert not restarts.counts_as_dead
    assert restarts.delay() == 0.0


def test_a_long_life_makes_the_next_try_the_first_and_a_short_one_does_not() -> None:
    restarts = Restarts(as_it_is)
    restarts.delay()
    restarts.loaded(100.0)
    restarts.ended(100.0 + SOUND_AFTER_S - 0.5)
    assert restarts.delay() == 0.1
    restarts.loaded(200.0)
    restarts.ended(200.0 + SOUND_AFTER_S)
    assert restarts.delay() == 0.0


def test_three_lives_in_a_row_without_a_batch_are_hopeless() -> None:
    restarts = Restarts(as_it_is)
    told = []
    for _ in range(FAILURES_UNTIL_DEAD):
        told.append(restarts.counts_as_dead)
        restarts.ended(0.0)
    assert told == [False] * FAILURES_UNTIL_DEAD
    assert restarts.counts_as_dead

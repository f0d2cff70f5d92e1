"""The time that a load may take, by a clock."""

from __future__ import annotations

from twisted.internet.task import Clock

from batcher.workers.load_limit import LoadLimit

REASON = "m: expected the model to be loaded within 10 s (`load_timeout_s`); it is not"


def limit_of(seconds: float) -> tuple[Clock, LoadLimit, list[str]]:
    """Return a clock, a limit by it, and what that says."""
    clock, told = Clock(), list[str]()
    return clock, LoadLimit(clock, "m", seconds, told.append), told


def test_a_load_that_takes_too_long_is_told_of_once() -> None:
    clock, limit, told = limit_of(10)
    limit.begin()
    clock.advance(9.9)
    assert told == []
    clock.advance(0.1)
    clock.advance(100)
    assert told == [REASON]


def test_a_load_that_has_ended_leaves_no_timer_behind() -> None:
    clock, limit, told = limit_of(10)
    limit.begin()
    limit.end()
    assert clock.getDelayedCalls() == []
    limit.end()
    assert told == []


def test_the_next_load_has_the_whole_time() -> None:
    clock, limit, told = limit_of(10)
    for _ in range(2):
        limit.begin()
        clock.advance(9)
        limit.end()
    limit.begin()
    clock.advance(9)
    assert told == []
    clock.advance(1)
    assert told == [REASON]


def test_zero_waits_for_ever() -> None:
    clock, limit, _ = limit_of(0)
    limit.begin()
    assert clock.getDelayedCalls() == []


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    clock, told = Clock(), list[str]()
    stood_still = [5.0]
    clock.stood_still = lambda: stood_still[0]  # type: ignore[attr-defined]
    limit = LoadLimit(clock, "m", 10, told.append)
    limit.begin()
    clock.advance(9)
    stood_still[0] += 90
    clock.advance(90)
    assert told == []
    clock.advance(1)
    assert told == [REASON]

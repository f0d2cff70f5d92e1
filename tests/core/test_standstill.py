"""Seconds in which the loop stood still."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from batcher.core.standstill import TICK_S, Standstill, stood_still_of


def test_ticks_in_time_and_ticks_that_a_busy_loop_makes_late_add_nothing() -> None:
    clock = Clock()
    standstill = Standstill(clock.seconds)
    for passed in (TICK_S, 0.0, TICK_S, 0.9, 1.0):
        clock.advance(passed)
        assert standstill.stood_still() == 0.0


def test_standstills_add_up_less_the_tick_that_was_due_anyway() -> None:
    clock = Clock()
    standstill = Standstill(clock.seconds)
    clock.advance(3.0 + TICK_S)
    assert standstill.stood_still() == 3.0
    assert standstill.stood_still() == 3.0
    clock.advance(90.0 + TICK_S)
    assert standstill.stood_still() == 93.0


def test_a_reactor_that_does_not_tick_never_stood_still() -> None:
    assert stood_still_of(Clock())() == 0.0


@pytest.mark.parametrize("passed", [2.0, 1000.0])
def test_a_reactor_that_ticks_is_asked(passed: float) -> None:
    clock = Clock()
    clock.stood_still = lambda: passed  # type: ignore[attr-defined]
    assert stood_still_of(clock)() == passed

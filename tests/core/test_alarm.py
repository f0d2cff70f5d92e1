"""The one timer that is only ever moved forward."""

from __future__ import annotations

from math import inf

import pytest
from twisted.internet.task import Clock

from batcher.core.alarm import Alarm


class Bench:
    """An alarm on a clock, and when it rang."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rang: list[float] = []
        self.alarm = Alarm(self.clock, lambda: self.rang.append(self.clock.seconds()))

    def pass_to(self, time: float) -> None:
        while self.clock.seconds() < time:
            self.clock.advance(0.5)


@pytest.mark.parametrize("times", [(4.0,), (4.0, 6.0), (6.0, 4.0), (4.0, 4.0)], ids=str)
def test_it_rings_once_at_the_earliest_of_its_times(times: tuple[float, ...]) -> None:
    bench = Bench()
    for time in times:
        bench.alarm.set(time)
        assert len(bench.clock.getDelayedCalls()) == 1
    bench.pass_to(10.0)
    assert bench.rang == [4.0]


def test_after_it_rang_it_can_be_set_again() -> None:
    bench = Bench()
    for time in (1.0, 3.0, 2.0):
        bench.alarm.set(time)
    bench.pass_to(1.5)
    bench.alarm.set(5.0)
    bench.pass_to(10.0)
    assert bench.rang == [1.0, 5.0]


def test_a_time_that_has_passed_rings_in_the_next_turn() -> None:
    bench = Bench()
    bench.pass_to(5.0)
    bench.alarm.set(1.0)
    assert bench.rang == []
    bench.clock.advance(0)
    assert bench.rang == [5.0]


def test_infinity_sets_nothing() -> None:
    bench = Bench()
    bench.alarm.set(inf)
    assert bench.clock.getDelayedCalls() == []


def test_cancelled_it_does_not_ring_until_it_is_set_again() -> None:
    bench = Bench()
    bench.alarm.cancel()
    bench.alarm.set(1.0)
    bench.alarm.cancel()
    assert bench.clock.getDelayedCalls() == []
    bench.pass_to(2.0)
    bench.alarm.set(4.0)
    bench.pass_to(10.0)
    assert bench.rang == [4.0]


def test_it_may_be_set_while_it_rings() -> None:
    clock, rang = Clock(), []

    def ring() -> None:
        rang.append(clock.seconds())
        if len(rang) < 3:
            alarm.set(clock.seconds() + 1.0)

    alarm = Alarm(clock, ring)
    alarm.set(1.0)
    for _ in range(5):
        clock.advance(1.0)
    assert rang == [1.0, 2.0, 3.0]

"""What notices that a batch runs for too long."""

from __future__ import annotations

from math import inf

from twisted.internet.task import Clock

from batcher.workers.watchdog import Watchdog


class Bench:
    """A watchdog of 10 seconds, and when it barked."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.clock = Clock()
        self.barked: list[float] = []
        self.watchdog = Watchdog(
            self.clock, seconds, lambda: self.barked.append(self.clock.seconds())
        )

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)


def test_it_barks_once_at_what_takes_too_long() -> None:
    bench = Bench()
    bench.watchdog.begin()
    bench.wait(9)
    assert bench.barked == []
    bench.wait(50)
    assert bench.barked == [10.0]
    assert bench.clock.getDelayedCalls() == []


def test_each_thing_that_begins_has_all_the_time_and_one_timer_serves_them_all() -> None:
    bench = Bench()
    for _ in range(20):
        bench.watchdog.begin()
        assert len(bench.clock.getDelayedCalls()) == 1
        bench.wait(6)
    assert bench.barked == []
    bench.wait(4)
    assert bench.barked == [124.0]


def test_it_watches_nothing_while_it_rests_and_then_again() -> None:
    bench = Bench()
    bench.watchdog.begin()
    bench.wait(5)
    bench.watchdog.rest()
    bench.wait(50)
    assert bench.barked == []
    assert bench.clock.getDelayedCalls() == [], "an idle worker wakes nobody"
    bench.watchdog.begin()
    bench.wait(10)
    assert bench.barked == [65.0]


def test_what_begins_while_it_barks_is_watched() -> None:
    clock, barked = Clock(), []

    def bark() -> None:
        barked.append(clock.seconds())
        watchdog.begin()

    watchdog = Watchdog(clock, 10.0, bark)
    watchdog.begin()
    clock.advance(10)
    clock.advance(10)
    assert barked == [10.0, 20.0]


def test_when_it_is_stopped_no_timer_is_left() -> None:
    bench = Bench()
    bench.watchdog.begin()
    bench.watchdog.stop()
    assert bench.clock.getDelayedCalls() == []


def test_without_a_limit_it_needs_no_timer() -> None:
    bench = Bench(inf)
    bench.watchdog.begin()
    assert bench.clock.getDelayedCalls() == []


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    clock = Clock()
    stood_still = [5.0]
    clock.stood_still = lambda: stood_still[0]  # type: ignore[attr-defined]
    barked: list[float] = []
    watchdog = Watchdog(clock, 10.0, lambda: barked.append(clock.seconds()))
    watchdog.begin()
    clock.advance(9.0)
    stood_still[0] += 90.0
    clock.advance(90.0)
    assert barked == [], "it has run for 9 of its 10 seconds"
    clock.advance(0.5)
    assert barked == []
    clock.advance(0.5)
    assert barked == [100.0]

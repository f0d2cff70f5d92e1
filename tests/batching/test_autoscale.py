"""How many instances are wanted: step by step, and under loads that a simulation brings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from batcher.batching.autoscale import CATCH_UP_S, WINDOW_S, Autoscale, Demand

FULL_ROWS, FULL_S = 32, 0.4
PER_S = FULL_ROWS / FULL_S
"""Rows/s that one instance answers in full batches: 80."""

COMES_S, COOL_DOWN_S = 20.0, 60.0


class Site:
    """A model whose instances take a while to come, looked at once a second.

    Attributes:
        wanted: how many instances were wanted at each look.
        ready: instances that take batches.
        waiting: rows that wait.
    """

    def __init__(self, least: int = 1, most: int = 8) -> None:
        self.clock = Clock()
        self.policy = Autoscale(least, most, COOL_DOWN_S)
        self.wanted: list[int] = []
        self.ready = least
        self.waiting = 0.0
        self.came = self.refused = 0.0
        self._coming = 0

    def run(self, seconds: int, rate: Callable[[float], float], refused: float = 0.0) -> list[int]:
        """Have `rate(now)` rows/s come, and `refused` rows/s besides; return what was wanted."""
        before = len(self.wanted)
        for _ in range(seconds):
            now = self.clock.seconds()
            self.came += rate(now) + refused
            self.refused += refused
            self.waiting = max(self.waiting + rate(now) - self.ready * PER_S, 0.0)
            self._scale(self.policy.look(now, self.demand()))
            self.clock.advance(1)
        return self.wanted[before:]

    def demand(self, full_s: float = FULL_S) -> Demand:
        numbers = int(self.came), int(self.refused), int(self.waiting)
        return Demand(*numbers, FULL_ROWS, full_s, self.ready)

    def _scale(self, wanted: int) -> None:
        self.wanted.append(wanted)
        self.ready = min(self.ready, wanted)
        missing = wanted - self.ready - self._coming
        self._coming += max(missing, 0)
        for _ in range(missing):
            self.clock.callLater(COMES_S, self._come, wanted)

    def _come(self, wanted: int) -> None:
        self._coming -= 1
        self.ready = min(self.ready + 1, self.policy.wanted)


def changes(wanted: list[int]) -> int:
    """Return how often another number was wanted than before."""
    return sum(a != b for a, b in pairwise(wanted))


def steady(rows_per_s: float) -> Callable[[float], float]:
    return lambda _: rows_per_s


def test_the_example_of_the_module() -> None:
    policy = Autoscale(1, 8, COOL_DOWN_S)
    policy.look(0.0, Demand(0, 0, 0, 32, 0.4, 2))
    assert policy.look(10.0, Demand(2000, 0, 1024, 32, 0.4, 2)) == 4


def test_a_load_that_one_instance_bears_wants_no_more() -> None:
    site = Site()
    assert set(site.run(600, steady(0.7 * PER_S))) == {1}


def test_a_load_finds_its_instances_once_and_keeps_them() -> None:
    site = Site()
    wanted = site.run(900, steady(3 * PER_S))
    assert wanted[-1] == 5  # need(0.6): 4 might be enough, and a fifth of what is there is spare
    assert site.waiting == 0
    assert max(wanted) == 6  # until the backlog of the first half minute is gone
    assert changes(wanted) == 6  # up in steps, down in one


@pytest.mark.parametrize("level", [0.78, 0.8, 0.82, 1.18, 1.22, 1.6, 2.4])
def test_a_load_that_hovers_at_a_bound_does_not_flap(level: float) -> None:
    site = Site()
    site.run(300, steady(level * PER_S))
    hovering = site.run(1200, lambda now: level * PER_S * (1.05 if now % 40 < 20 else 0.95))
    assert changes(hovering) <= 1


def test_instances_leave_after_a_cool_down_and_not_before() -> None:
    site = Site()
    site.run(300, steady(3 * PER_S))
    quiet = site.run(200, steady(0))
    first_less = next(i for i, wanted in enumerate(quiet) if wanted < quiet[0])
    assert COOL_DOWN_S <= first_less <= COOL_DOWN_S + WINDOW_S
    assert quiet[-1] == 1


def test_a_pause_shorter_than_the_cool_down_costs_no_instance() -> None:
    site = Site()
    site.run(300, steady(2 * PER_S))
    before = site.wanted[-1]
    loads = site.run(1200, lambda now: 0 if now % 90 < 40 else 2 * PER_S)
    assert min(loads) == before


def test_single_bursts_that_are_soon_worked_off_want_nothing() -> None:
    site = Site()
    bursts = site.run(600, lambda now: 5 * PER_S if now % 30 == 0 else 0)
    assert set(bursts) == {1}


def test_a_backlog_is_worked_off_by_more_than_the_load_needs() -> None:
    site = Site(least=2)
    site.run(20, steady(PER_S))
    assert site.wanted[-1] == 2
    site.waiting = 3 * CATCH_UP_S * PER_S
    assert site.run(1, steady(PER_S))[-1] >= 5


def test_deadlines_at_risk_want_one_more_though_the_mean_load_does_not() -> None:
    site = Site()
    assert set(site.run(30, steady(0.3 * PER_S))) == {1}
    at_risk = site.run(15, steady(0.3 * PER_S), refused=1)
    assert at_risk[-1] == 2  # one more than take batches, however long that one takes to come
    assert site.run(30, steady(0.3 * PER_S))[-1] == 2
    assert site.run(int(COOL_DOWN_S + WINDOW_S), steady(0.3 * PER_S))[-1] == 1


def test_few_refusals_among_many_rows_are_no_risk() -> None:
    site = Site()
    assert set(site.run(60, steady(0.5 * PER_S), refused=0.3)) == {1}


@pytest.mark.parametrize(("least", "most"), [(1, 1), (2, 3), (4, 8)])
def test_there_are_never_fewer_or_more_than_asked_for(least: int, most: int) -> None:
    site = Site(least, most)
    wanted = site.run(20, steady(10 * PER_S), refused=5) + site.run(400, steady(0))
    assert {min(wanted), max(wanted)} == {least, most}


def test_nothing_changes_while_nothing_is_known() -> None:
    site = Site()
    site.run(60, steady(3 * PER_S))
    before, now = site.policy.wanted, site.clock.seconds()
    assert before > 1
    for second in range(200):  # all are lost, and come back with another model
        site.came += 1000
        demand = site.demand(full_s=0.0)._replace(ready=0 if second < 100 else 1)
        assert site.policy.look(now + second, demand) == before
    assert site.policy.look(now + 200, site.demand()) == 8


def test_a_model_in_another_s_place_begins_with_as_many_for_a_cool_down() -> None:
    site = Site(least=1, most=3)
    site.policy.begin_with(6, 0.0)
    wanted = site.run(100, steady(0))
    assert wanted[0] == 3
    assert wanted.index(1) == COOL_DOWN_S + 1

"""l(b) of models whose batches take what a formula says, on a clock that only batches move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import cycle

import pytest

from batcher.app.tuning.curve import MOST_RUNS, Curve, Limits, Timing, measured


class Model:
    """Takes what a formula says for a batch; None does not run."""

    def __init__(self, seconds: Callable[[int], float | None]) -> None:
        self.now = 0.0
        self.ran: list[int] = []
        self._seconds = seconds
        self._noise = cycle([1.0, 1.1, 0.95])

    async def run(self, rows: int) -> float | None:
        self.ran.append(rows)
        seconds = self._seconds(rows)
        if seconds is None:
            return None
        seconds *= next(self._noise)
        self.now += seconds
        return seconds

    def curve(self, limits: Limits, until: float = 1.0) -> Curve:
        left = lambda: max(until - self.now, 0.0)  # noqa: E731  # reads as a number
        return asyncio.run(measured(self.run, limits, lambda: self.now, left))


def straight(rows: int) -> float:
    return 1e-3 + 1e-4 * rows


def test_a_size_has_the_median_of_its_runs() -> None:
    curve = Model(straight).curve(Limits(8, 8))
    assert curve.sizes == [1, 2, 4, 8]
    for timing in curve.timings:
        assert timing.seconds == pytest.approx(straight(timing.rows), rel=0.06)
    assert "no larger batch than 8" in curve.end


def test_one_slow_run_moves_neither_the_median_nor_the_deviation_much() -> None:
    timing = Timing(4, (0.01, 0.0102, 0.0099, 0.01, 0.5))
    assert timing.seconds == 0.01
    assert timing.deviation < 0.02


def test_larger_batches_are_tried_while_a_row_gets_cheaper() -> None:
    assert Model(lambda rows: 1e-3 + 1e-6 * rows).curve(Limits(4, 64)).sizes[-1] == 64
    flat = Model(lambda rows: 1e-3 * rows).curve(Limits(4, 64))
    assert flat.sizes[-1] == 8
    assert "a row costs as much" in flat.end


def test_two_sizes_in_which_a_row_costs_more_are_the_end() -> None:
    curve = Model(lambda rows: straight(rows) if rows <= 8 else 2e-3 * rows).curve(Limits(64, 256))
    assert curve.sizes == [1, 2, 4, 8, 16, 32]
    assert "a row costs more in batches of 32" in curve.end


def test_a_single_size_in_which_a_row_costs_more_is_not_the_end() -> None:
    bad = {2: 0.1}
    curve = Model(lambda rows: bad.get(rows) or straight(rows)).curve(Limits(16, 16))
    assert curve.sizes == [1, 2, 4, 8, 16]


def test_a_batch_that_does_not_run_as_one_is_the_end() -> None:
    curve = Model(lambda rows: straight(rows) if rows <= 4 else None).curve(Limits(64, 256))
    assert curve.sizes == [1, 2, 4]
    assert "8 rows does not run as one" in curve.end


def test_a_batch_that_takes_longer_than_the_deadline_is_the_end() -> None:
    curve = Model(straight).curve(Limits(64, 64, deadline=2e-3))
    assert curve.sizes == [1, 2, 4, 8, 16]
    assert "longer than the deadline" in curve.end


def test_rounds_end_with_the_time_and_with_what_is_known() -> None:
    slow = Model(lambda rows: 0.5).curve(Limits(2, 2), until=1.0)
    assert [len(timing.runs) for timing in slow.timings] == [3, 3]
    fast = Model(lambda rows: 0.02).curve(Limits(1, 1), until=1e9)
    assert 3 < len(fast.timings[0].runs) <= MOST_RUNS + 2


def test_a_present_size_that_is_no_power_of_two_is_measured_too() -> None:
    assert 24 in Model(straight).curve(Limits(24, 96)).sizes


def test_sizes_end_where_there_is_no_time_for_larger_ones() -> None:
    curve = Model(lambda rows: 0.1 * rows).curve(Limits(64, 64, longest=0.3))
    assert curve.sizes == [1, 2, 4]
    assert curve.end == "there is no time for larger batches than 4"

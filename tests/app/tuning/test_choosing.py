"""Which settings a simulated load asks for, and when real load has proved them."""

from __future__ import annotations

from math import inf

import pytest

from batcher.app.simulation.loads import closed, read_load
from batcher.app.tuning.choosing import Option, Setup, Simulator, different, ranked, search
from batcher.app.tuning.curve import Curve, Timing
from batcher.app.tuning.picture import ticks
from batcher.app.tuning.reasons import with_reasons
from batcher.app.tuning.rounds import run_seconds
from batcher.app.tuning.sending import Measured
from batcher.app.tuning.tuning import chosen
from batcher.app.tuning.user_load import UserLoad, scaled
from batcher.app.tuning.verdict import best, compared, verdict
from batcher.config.model_settings import ModelSettings


def curve(*points: tuple[int, float]) -> Curve:
    return Curve(tuple(Timing(rows, (seconds,)) for rows, seconds in points), "")


KNEE = Setup({}, curve((1, 2e-3), (2, 2.2e-3), (4, 2.4e-3), (8, 2.8e-3), (16, 12e-3), (32, 25e-3)))
"""Rows are cheap up to 8, and dear beyond."""


def simulator(load: str, deadline: float | None = None, **settings: object) -> Simulator:
    present = ModelSettings.model_validate({"max_batch_size": 32, **settings})
    return Simulator(present, UserLoad(read_load(load), load, deadline), requests=2000)


def searched(of: Simulator, *setups: Setup) -> list[Option]:
    return search(of, setups, lambda text: None)


def measured(in_time: float, p99: float) -> Measured:
    return Measured(in_time, in_time, p99 / 2, p99, 0.0, 100, 0.0, 0.0)


def test_where_rows_get_dear_the_largest_batch_ends() -> None:
    options = searched(simulator("closed:32"), KNEE)
    assert options[0].changes == {}
    found = ranked(options)[0]
    assert found.changes["max_batch_size"] == 8
    assert found.result.answered > 1.5 * options[0].result.answered


def test_where_nothing_gains_the_present_settings_come_first() -> None:
    assert ranked(searched(simulator("poisson:20/s"), KNEE))[0].changes == {}


def test_beyond_capacity_the_server_is_told_the_deadline() -> None:
    options = searched(simulator("poisson:4000/s", 20e-3, max_batch_size=8), KNEE)
    found = ranked(options)[0]
    assert found.changes["timeout_ms"] == 20.0
    assert found.result.goodput > 2 * options[0].result.goodput
    reason = with_reasons(found.changes, options, 20e-3)["timeout_ms"].reason
    assert reason == "later than 20 ms is too late: refused at once instead"


def test_a_setup_whose_batches_are_faster_is_found_with_its_settings() -> None:
    faster = Setup({"torch_threads": 4}, curve((1, 1e-3), (8, 1.4e-3), (32, 3e-3)))
    options = searched(simulator("closed:32"), KNEE, faster)
    found = ranked(options)[0]
    assert found.changes["torch_threads"] == 4
    reasons = with_reasons(found.changes, options, None)
    assert reasons["torch_threads"].reason == "32 rows take 3 ms; 25 ms now"


def test_the_reason_for_a_size_is_what_rows_cost_around_it() -> None:
    options = searched(simulator("closed:32"), KNEE)
    found = next(each for each in options if each.changes == {"max_batch_size": 8})
    reason = with_reasons(found.changes, options, None)["max_batch_size"].reason
    assert reason.startswith("a row takes 0.35 ms, 0.6 ms at 4, 0.75 ms at 16; simulated ")


def test_what_is_no_better_for_more_changes_is_not_tried() -> None:
    options = searched(simulator("closed:32"), KNEE)
    first, second = different(options, 2)
    assert first.changes == {"max_batch_size": 8}
    assert not first.changes.items() <= second.changes.items()


def test_the_best_of_each_setup_is_tried_before_the_second_of_any() -> None:
    faster = Setup({"torch_threads": 4}, curve((1, 1e-3), (8, 1.4e-3), (32, 3e-3)))
    options = searched(simulator("closed:32"), KNEE, faster)
    first, second = different(options, 2)
    assert first.changes["torch_threads"] == 4
    assert second.changes == {"max_batch_size": 8}


def test_a_load_is_scaled_in_requests_or_in_clients() -> None:
    assert scaled(read_load("poisson:100/s"), 2)[0].rate == 200  # type: ignore[union-attr]
    assert scaled(closed(8), 0.5)[0].clients == 4  # type: ignore[union-attr]


def test_a_gain_within_the_spread_of_the_rounds_is_noise() -> None:
    same = [100.0, 100.0, 100.0]
    assert compared(same, [101.0, 101.0, 101.0], 0.02).noise == 0.02
    spread = compared(same, [90.0, 110.0, 120.0], 0.02)
    assert spread.gain == pytest.approx(0.1)
    assert spread.noise > 0.1
    assert compared([0.0] * 3, [5.0] * 3, 0.02).gain == inf
    assert compared([0.0] * 3, [0.0] * 3, 0.02).gain == 0


@pytest.mark.parametrize(
    ("in_time", "p99", "is_better"),
    [
        (130.0, 1.0, True),
        (130.0, 2.0, True),
        (101.0, 0.5, True),
        (101.0, 0.98, False),
        (80.0, 0.1, False),
    ],
)
def test_answers_count_before_latency(in_time: float, p99: float, is_better: bool) -> None:
    found = verdict([measured(100, 1.0)] * 4, [measured(in_time, p99)] * 4)
    assert found.is_better is is_better


def test_of_equal_settings_the_first_is_the_best() -> None:
    present = [measured(100, 1.0)] * 4
    good, equal = [measured(150, 1.0)] * 4, [measured(151, 0.9)] * 4
    assert best([verdict(present, present), verdict(present, good), verdict(present, equal)]) == 1
    assert best([verdict(present, present)]) is None


def test_settings_must_be_better_both_simulated_and_measured() -> None:
    options = searched(simulator("closed:32"), KNEE)
    better = next(each for each in options if each.changes == {"max_batch_size": 8})
    equal = next(each for each in options[1:] if each.result.answered == options[0].result.answered)
    slow, fast = [measured(100, 1.0)] * 4, [measured(150, 1.0)] * 4
    assert chosen([options[0], better], [slow, fast]) == {"max_batch_size": 8}
    assert chosen([options[0], better], [slow, slow]) == {}
    quick = [measured(100, 0.5)] * 4
    assert chosen([options[0], better], [slow, quick]) == {}  # more answers were to be expected
    assert chosen([options[0], equal], [slow, fast]) == {}


@pytest.mark.parametrize(
    ("right", "expected"), [(7.0, [0, 2, 4, 6, 8]), (1500.0, [0, 500, 1000, 1500])]
)
def test_the_ticks_of_the_chart_are_round_numbers(right: float, expected: list[float]) -> None:
    assert ticks(right) == pytest.approx(expected)


def test_runs_are_long_enough_and_leave_enough_rounds() -> None:
    assert run_seconds(left=30.0, rate=10_000) == pytest.approx(30 / 9)
    assert run_seconds(left=6.0, rate=100) == 2.0
    assert run_seconds(left=0.0, rate=100) == 2.0
    assert run_seconds(left=0.0, rate=1000) == 0.5
    assert run_seconds(left=600.0, rate=1) == 4.0

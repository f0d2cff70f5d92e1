"""Schedules: when requests are due, without a clock."""

from __future__ import annotations

import itertools
import math

import pytest

from benchmarks.loadgen.schedule import constant, poisson, split_time
from tests.benchmarks.loadgen.doubles import take


def test_a_constant_schedule_does_not_drift() -> None:
    times = constant(10_000.0)
    assert take(3, times) == [0.0, 0.0001, 0.0002]
    assert next(itertools.islice(constant(3.0), 300_000, None)) == 100_000.0


def test_a_poisson_schedule_keeps_its_mean_rate() -> None:
    assert take(100_000, poisson(500.0, seed=1))[-1] == pytest.approx(100_000 / 500.0, rel=0.01)


def test_a_poisson_schedule_is_as_irregular_as_independent_users() -> None:
    times = take(100_000, poisson(500.0, seed=2))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.02)


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    first = take(3000, poisson(100.0, seed=7))
    assert take(3000, poisson(100.0, seed=7)) == first
    assert take(3000, poisson(100.0, seed=8)) != first


def test_a_time_is_split_into_seconds_and_nanoseconds_and_never_disarms() -> None:
    assert split_time(12.25) == (12, 250_000_000)
    assert split_time(math.inf) == (0, 0)

"""Full batches are given up for half ones only by rates that were measured."""

from __future__ import annotations

import pytest

from batcher.batching.halves import (
    LATE_WAITS,
    LEAST_REVIEWS,
    MIN_PAUSE,
    REVIEWED_WAITS,
    Halves,
)

CLIENTS, HALF_S = 64, 3.6e-3
BEST = CLIENTS / 2 / HALF_S
"""Rows/s of half batches that follow one another at once."""


@pytest.fixture
def halves() -> Halves:
    """Return 64 clients that are known to return, of which nothing was measured."""
    found = Halves()
    found.certain = True
    for _ in range(100):
        found.note_end(CLIENTS // 2, CLIENTS // 2)
    return found


def try_full(halves: Halves, rate: float) -> int:
    """Measure full batches of `rate` rows/s; return for how many batches they are given up."""
    halves.pause = 0
    for _ in range(REVIEWED_WAITS):
        halves.note_wait(in_vain=False)
    for _ in range(LEAST_REVIEWS):
        halves.compare(rate, HALF_S)
    return halves.pause


def test_half_batches_that_were_measured_are_the_mark(halves: Halves) -> None:
    assert try_full(halves, 0.8 * BEST)
    halves.compare(0.7 * BEST, HALF_S)
    assert not try_full(halves, 0.8 * BEST)


def test_half_batches_that_were_not_measured_count_as_fast_as_can_be(halves: Halves) -> None:
    """Clients may have been told from chance before the pause and after it, but not in it."""
    assert try_full(halves, 0.8 * BEST)
    halves.compare(0.9 * BEST, HALF_S)
    assert try_full(halves, 0.8 * BEST) == MIN_PAUSE
    assert try_full(halves, 0.8 * BEST) == 2 * MIN_PAUSE


def test_halves_that_are_late_time_after_time_are_waited_for_more_and_more_seldom(
    halves: Halves,
) -> None:
    halves.certain = False
    for rest in (MIN_PAUSE, 2 * MIN_PAUSE, 4 * MIN_PAUSE, 4 * MIN_PAUSE):
        halves.rest = 0
        for _ in range(LATE_WAITS):
            assert halves.rest == 0
            halves.note_wait(in_vain=True)
        assert halves.rest == rest


def test_a_half_that_is_back_in_time_makes_up_for_late_ones(halves: Halves) -> None:
    halves.certain = False
    for number in range(10 * LATE_WAITS):
        halves.note_wait(in_vain=number % LATE_WAITS > 0)
    assert halves.rest == 0

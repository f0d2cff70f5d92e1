"""The largest batch that fits: halved at once, raised slowly, and never so that it swings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.ceiling import (
    FULL_BATCHES_BEFORE_RAISE,
    MAX_FULL_BATCHES_BEFORE_RAISE,
    Ceiling,
)


def run(ceiling: Ceiling, memory: int, batches: int) -> int:
    """Send full batches to a device that has room for `memory` rows.

    Return how many were too much.
    """
    failed = 0
    for _ in range(batches):
        if ceiling.rows > memory:
            ceiling.note_overflow(ceiling.rows)
            failed += 1
        else:
            ceiling.note_fit(ceiling.rows)
    return failed


def test_what_was_too_much_is_halved() -> None:
    ceiling = Ceiling(64)
    ceiling.note_overflow(64)
    assert ceiling.rows == 32
    ceiling.note_overflow(32)
    assert ceiling.rows == 16


def test_one_row_is_the_least() -> None:
    ceiling = Ceiling(64)
    for _ in range(10):
        ceiling.note_overflow(ceiling.rows)
    assert ceiling.rows == 1


def test_a_row_that_does_not_fit_alone_leaves_it_where_it_was() -> None:
    ceiling = Ceiling(64)
    ceiling.note_overflow(64)
    ceiling.note_row_overflow(64)
    assert ceiling.rows == 64
    ceiling.note_row_overflow(32)
    assert ceiling.rows == 64, "what was learnt meanwhile stays"


def test_a_batch_that_was_sent_before_the_ceiling_fell_teaches_nothing_more() -> None:
    ceiling = Ceiling(64)
    ceiling.note_overflow(64)
    ceiling.note_overflow(64)
    assert ceiling.rows == 32


def test_it_rises_again_slowly_and_only_by_full_batches() -> None:
    ceiling = Ceiling(64)
    ceiling.note_overflow(64)
    for _ in range(10 * FULL_BATCHES_BEFORE_RAISE):
        ceiling.note_fit(31)
    assert ceiling.rows == 32
    run(ceiling, 64, FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 36
    run(ceiling, 64, 12 * FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 64


def test_a_failed_try_falls_back_to_what_fitted_and_waits_longer_for_the_next() -> None:
    ceiling = Ceiling(64)
    assert run(ceiling, 40, 100 * FULL_BATCHES_BEFORE_RAISE) <= 9, (
        "1 at first, then fewer and fewer"
    )
    assert ceiling.rows == 40


def test_only_a_failed_try_makes_the_next_one_wait_longer() -> None:
    ceiling = Ceiling(64)
    while ceiling.rows > 4:  # on the way down smaller batches run, too
        ceiling.note_overflow(ceiling.rows)
        ceiling.note_fit(1)
    run(ceiling, 64, FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows > 4


def test_what_fits_for_long_is_no_try_when_it_does_not_fit_any_more() -> None:
    ceiling = Ceiling(16)
    ceiling.note_overflow(16)
    run(ceiling, 16, 20 * FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 16
    ceiling.note_overflow(16)
    assert ceiling.rows == 15
    run(ceiling, 16, FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 16


def test_when_memory_is_free_again_the_failed_tries_of_before_are_forgotten() -> None:
    ceiling = Ceiling(64)
    run(ceiling, 40, 100 * FULL_BATCHES_BEFORE_RAISE)
    assert run(ceiling, 64, MAX_FULL_BATCHES_BEFORE_RAISE) == 0, "the first try"
    run(ceiling, 64, 6 * FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 64


@given(st.integers(1, 64))
def test_in_the_end_it_is_what_fits(memory: int) -> None:
    ceiling = Ceiling(64)
    run(ceiling, memory, 200 * FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == memory


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=50))
def test_it_stays_between_one_row_and_the_largest_batch(
    largest: int, batches: list[tuple[int, bool]]
) -> None:
    ceiling = Ceiling(largest)
    for rows, fits in batches:
        (ceiling.note_fit if fits else ceiling.note_overflow)(min(rows, largest))
        assert 1 <= ceiling.rows <= largest


def test_a_limit_of_the_model_is_never_exceeded_however_much_fits() -> None:
    ceiling = Ceiling(64)
    ceiling.limit(4)
    assert ceiling.rows == 4
    ceiling.note_overflow(4)
    assert ceiling.rows == 2
    run(ceiling, 64, 10 * MAX_FULL_BATCHES_BEFORE_RAISE)
    assert ceiling.rows == 4


def test_a_limit_above_what_fits_leaves_the_ceiling_where_it_was() -> None:
    ceiling = Ceiling(64)
    ceiling.note_overflow(16)
    ceiling.limit(32)
    assert ceiling.rows == 8

"""How long batches take: what is learnt, what is not believed, and what is not known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.cost import MAX_SHAPES, CostModel, Curve


def affine(rows: int) -> float:
    return 4e-3 + 0.25e-3 * rows


def learnt(*sizes: int, times: int = 50) -> CostModel:
    """Return what is known after `times` batches of each of `sizes`."""
    cost = CostModel()
    for _ in range(times):
        for rows in sizes:
            cost.add(rows, (), affine(rows))
    return cost


def test_nothing_is_estimated_before_anything_ran() -> None:
    assert CostModel().finish(1) == CostModel().seconds(64) == 0


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 17, 32])
def test_an_affine_model_is_known_at_every_size_between_those_that_ran(rows: int) -> None:
    assert learnt(1, 2, 4, 8, 16, 32).seconds(rows) == pytest.approx(affine(rows), rel=0.05)


def test_larger_batches_than_ran_take_longer_in_proportion_and_smaller_ones_are_not_known() -> None:
    cost = learnt(16)
    assert cost.seconds(32) == pytest.approx(2 * affine(16))
    assert cost.seconds(4) == 0, "it must be tried to be known"
    assert cost.seconds(12) == pytest.approx(affine(16)), "it is of the same class"
    assert learnt(8, 16).seconds(32) == pytest.approx(affine(32)), "the line goes on"


def test_one_batch_that_took_a_hundred_times_as_long_hardly_counts() -> None:
    cost = learnt(16)
    cost.add(16, (), 100 * affine(16))
    assert cost.seconds(16) < 1.2 * affine(16)


@pytest.mark.parametrize("factor", [10.0, 0.1], ids=["slower", "faster"])
def test_a_lasting_change_is_learnt(factor: float) -> None:
    cost = learnt(16)
    for _ in range(60):
        cost.add(16, (), factor * affine(16))
    assert cost.seconds(16) == pytest.approx(factor * affine(16), rel=0.15)


def test_shapes_have_times_of_their_own_and_unknown_ones_those_of_all() -> None:
    cost = CostModel()
    for _ in range(50):
        cost.add(4, "short", 1e-3)
        cost.add(4, "long", 9e-3)
    assert cost.seconds(4, "short") == pytest.approx(1e-3)
    assert cost.seconds(4, "long") == pytest.approx(9e-3)
    assert 1e-3 < cost.seconds(4, "other") < 9e-3


@pytest.mark.parametrize("factor", [1.0, 3.0], ids=["as all", "slower"])
@pytest.mark.parametrize("ran", [[1], [1, 2]], ids=["one size", "two sizes"])
def test_of_a_shape_that_ran_in_small_batches_alone_large_ones_take_as_much_longer_as_in_warm_up(
    ran: list[int], factor: float
) -> None:
    cost = CostModel()
    cost.seed((rows, affine(rows)) for rows in (1, 2, 4, 8, 16, 32, 64))
    for rows in ran:
        # the second one is late by chance
        cost.add(rows, "shape", factor * affine(rows) * (1.2 if rows > 1 else 1))
    assert cost.seconds(64, "shape") == pytest.approx(factor * affine(64), rel=0.25)
    assert learnt_of_shape(1).seconds(8, "shape") == pytest.approx(8 * affine(1)), "no warm-up"
    assert learnt_of_shape(1, 2).seconds(8, "shape") == pytest.approx(affine(8), rel=0.01)


def learnt_of_shape(*sizes: int) -> CostModel:
    """Return what is known after one batch of each of `sizes`, without warm-up."""
    cost = CostModel()
    for rows in sizes:
        cost.add(rows, "shape", affine(rows))
    return cost


def test_only_so_many_shapes_are_remembered() -> None:
    cost = CostModel()
    for shape in range(2 * MAX_SHAPES):
        cost.add(1, shape, 1.0)
    assert len(cost._shapes) == MAX_SHAPES
    assert 2 * MAX_SHAPES - 1 in cost._shapes


def test_the_margin_covers_nine_of_ten_and_comes_down_again() -> None:
    cost = learnt(16)
    late = [0.0, 1e-4, 1e-4, 2e-4, 2e-4, 3e-4, 3e-4, 4e-4, 4e-4, 5e-4]
    for _ in range(100):
        for seconds in late:
            cost.add(16, (), affine(16), seconds)
    wide = cost.margin
    assert 3e-4 <= wide <= 6e-4
    for _ in range(300):
        cost.add(16, (), affine(16))
    assert cost.margin < wide / 4


def test_the_margin_is_never_more_than_a_part_of_a_batch() -> None:
    cost = learnt(16)
    for _ in range(1000):
        cost.add(16, (), affine(16), 1.0)
    assert cost.margin <= 0.1 * affine(16)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(1e-6, 10)), min_size=1, max_size=60),
    st.integers(1, 600),
)
def test_estimates_are_never_negative_and_known_at_every_size_that_ran(
    batches: list[tuple[int, float]], rows: int
) -> None:
    curve = Curve()
    for size, seconds in batches:
        curve.add(size, seconds)
    assert curve.seconds(rows) >= 0
    smallest = min(size for size, _ in batches)
    assert (
        curve.seconds(smallest) <= 2 * max(seconds for _, seconds in batches)
        or len({size for size, _ in batches}) > 1
    )

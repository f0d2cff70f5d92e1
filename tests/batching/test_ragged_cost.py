"""The time of a padded batch is learnt as a plane over its rows and its elements."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.ragged_cost import Plane, RaggedCostModel
from batcher.core.padding import Padding, RaggedGroup
from tests.support.models import model_spec, tensor

SPEC = model_spec(
    inputs=(tensor("x", shape=(-1,), pad=0, warmup_shape=(10,)),), outputs=(tensor("y", shape=()),)
)


def taught(true: tuple[float, float, float], batches: int, learnt: Plane, noise: float = 0) -> None:
    random = Random(1)
    for _ in range(batches):
        rows, elements = random.randint(1, 32), random.randint(1, 500)
        exact = true[0] + rows * (true[1] + true[2] * elements)
        learnt.add(rows, elements, exact * (1 + noise * random.uniform(-1, 1)))


@pytest.mark.parametrize(
    "true", [(4e-3, 0.0, 1e-5), (0.0, 0.0, 1e-5), (4e-3, 1e-4, 0.0), (2e-3, 1e-4, 1e-5)]
)
def test_a_plane_is_found_again_behind_noise(true: tuple[float, float, float]) -> None:
    learnt = Plane()
    taught(true, 200, learnt, noise=0.1)
    for rows, elements in ((1, 10), (8, 100), (32, 500)):
        exact = true[0] + rows * (true[1] + true[2] * elements)
        assert learnt.seconds(rows, elements) == pytest.approx(exact, rel=0.1)


def test_a_lasting_change_is_learnt_within_some_hundred_batches() -> None:
    learnt = Plane()
    taught((2e-3, 0.0, 1e-5), 500, learnt)
    taught((6e-3, 0.0, 3e-5), 1000, learnt)
    assert learnt.seconds(16, 200) == pytest.approx(6e-3 + 16 * 200 * 3e-5, rel=0.1)


def test_one_slow_batch_changes_little() -> None:
    learnt = Plane()
    taught((2e-3, 0.0, 1e-5), 200, learnt)
    before = learnt.seconds(16, 200)
    learnt.add(16, 200, 1.0)
    taught((2e-3, 0.0, 1e-5), 8, learnt)
    assert learnt.seconds(16, 200) == pytest.approx(before, rel=0.15)


def test_of_batches_of_one_length_the_elements_are_taken_to_cost() -> None:
    learnt = Plane()
    for rows in (1, 2, 4, 8):
        learnt.add(rows, 100, 1e-3 + rows * 1e-3)
    assert learnt.per_element == pytest.approx(1e-5, rel=0.01)
    assert learnt.base == pytest.approx(1e-3, rel=0.01)


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(0, 5000), st.floats(1e-6, 10.0)), max_size=40
    )
)
def test_no_estimate_is_negative_or_falls_with_the_size(
    batches: list[tuple[int, int, float]],
) -> None:
    learnt = Plane()
    for rows, elements, seconds in batches:
        learnt.add(rows, elements, seconds)
        assert 0 <= learnt.seconds(1, 0) <= learnt.seconds(2, 10) <= learnt.seconds(2, 20)


def test_warm_up_seeds_the_plane_and_a_group_without_a_length_has_the_mean_one() -> None:
    padding = Padding(SPEC)
    model = RaggedCostModel()
    timings = {1: 2e-3, 2: 3e-3, 4: 5e-3}
    model.seed(timings.items(), {(rows, 10): each for rows, each in timings.items()})
    group = padding.group_of({"x": np.zeros((1, 7), "<f4")})
    assert isinstance(group, RaggedGroup)
    assert model.seconds(4, group) == pytest.approx(5e-3, rel=0.01)
    assert model.seconds(4, group.padded_to((20,))) == pytest.approx(9e-3, rel=0.01)


def test_warm_up_at_several_lengths_tells_rows_from_elements() -> None:
    model = RaggedCostModel()
    sizes = [(rows, elements) for elements in (16, 128, 512) for rows in (1, 4, 32)]
    lengths = {(rows, each): 2e-3 + rows * 1e-4 + rows * each * 1e-6 for rows, each in sizes}
    model.seed([], lengths)
    assert model.plane.base == pytest.approx(2e-3, rel=0.05)
    assert model.plane.per_row == pytest.approx(1e-4, rel=0.05)
    assert model.plane.per_element == pytest.approx(1e-6, rel=0.05)

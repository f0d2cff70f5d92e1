"""How levels take turns: by weight, and by how long they waited."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from tests.support.scheduling import part

WEIGHTS = {1: 4.0, 2: 2.0, 3: 1.0}
NOW = 10.0
ROWS = 840


def levels_of(
    *parts: Part,
    weights: dict[int, float] = WEIGHTS,
    ageing: float = inf,
    smaller_first: float = 0.0,
) -> Levels:
    levels = Levels(weights.__getitem__, ageing, smaller_first)
    for each in parts:
        levels.add(each)
    return levels


def shares(
    waits: dict[int, float], *, weights: dict[int, float] = WEIGHTS, ageing: float = 1.0
) -> Counter[int]:
    """Return the rows of each level in one long batch, whose parts have waited so long."""
    parts = [
        part(level=level, arrival=NOW - wait) for level, wait in waits.items() for _ in range(ROWS)
    ]
    packed = levels_of(*parts, weights=weights, ageing=ageing).pack("a", ROWS, NOW)
    return Counter(each.level for each in packed)


@pytest.mark.parametrize("wait", [0.0, 1.0, 9.0])
def test_equal_waits_leave_the_shares_of_the_weights(wait: float) -> None:
    assert shares(dict.fromkeys(WEIGHTS, wait)) == {1: 480, 2: 240, 3: 120}


@pytest.mark.parametrize(("wait", "times"), [(0.0, 1), (1.0, 2), (2.0, 3), (5.0, 6)])
def test_a_levels_share_counts_twice_after_one_ageing_and_three_times_after_two(
    wait: float, times: int
) -> None:
    found = shares({1: 0.0, 2: wait}, weights={1: 1.0, 2: 1.0})
    assert found[2] / found[1] == pytest.approx(times, rel=0.02)


def test_without_ageing_waits_change_nothing() -> None:
    assert shares({1: 0.0, 2: 9.0, 3: 1.0}, ageing=inf) == {1: 480, 2: 240, 3: 120}


def test_what_waited_longest_of_all_cannot_be_overtaken_by_any_weight_for_ever() -> None:
    found = shares({1: 0.0, 2: 9.0}, weights={1: 1000.0, 2: 1.0}, ageing=0.009)
    assert found[2] == pytest.approx(found[1], rel=0.01), (
        "1000 times its wait against 1000 times its weight"
    )


def test_a_clock_that_was_set_back_gives_nobody_more() -> None:
    assert shares({1: -5.0, 2: -1.0, 3: 0.0}) == {1: 480, 2: 240, 3: 120}


waiting = st.lists(
    st.builds(
        part, rows=st.integers(1, 9), level=st.sampled_from([*WEIGHTS]), arrival=st.floats(0, NOW)
    ),
    min_size=1,
    max_size=30,
)


@given(
    parts=waiting,
    sizes=st.lists(st.integers(1, 16), min_size=1, max_size=8),
    ageing=st.sampled_from([inf, 10.0, 1.0, 0.01]),
    smaller_first=st.sampled_from([0.0, 0.5, 20.0]),
)
def test_a_batch_is_what_would_be_served_one_by_one(
    parts: list[Part], sizes: list[int], ageing: float, smaller_first: float
) -> None:
    parts.sort(key=lambda each: each.arrival)
    batches = levels_of(*parts, ageing=ageing, smaller_first=smaller_first)
    singles = levels_of(*parts, ageing=ageing, smaller_first=smaller_first)
    for size in sizes:
        if not batches.rows:
            break
        packed = batches.pack("a", size, NOW)
        batches.take(packed, NOW)
        batches.check_invariants()
        for each in packed:
            assert singles.head() is each
            singles.take([each], NOW)
        head = singles.head()
        assert head is None or head.rows > size - sum(each.rows for each in packed), (
            "it ends where a part does not fit"
        )
        assert batches.head() is head, "and is charged as if they had been"

"""Cuts by length take the least time, lose no row, keep every limit, and starve nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cost import Plane
from batcher.batching.ragged_cuts import MAX_LATE, RaggedCuts, optimal_cuts
from batcher.core.padding import Padding, RaggedGroup
from tests.support.models import model_spec, tensor

SPEC = model_spec(inputs=(tensor("x", shape=(-1,), pad=0),), outputs=(tensor("y", shape=()),))
PADDING = Padding(SPEC)
OF_PICTURES = Padding(
    model_spec(inputs=(tensor("x", shape=(-1, -1), pad=0),), outputs=SPEC.outputs)
)
parts_of_windows = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=8)


def plane(base: float = 8.0, per_row: float = 0.0, per_element: float = 1.0) -> Plane:
    made = Plane()
    made.base, made.per_row, made.per_element = base, per_row, per_element
    return made


def part(length: int, rows: int = 1, deadline: float = inf) -> Part:
    inputs = {"x": np.zeros((rows, length), "<f4")}
    return Part(inputs, rows, 1, PADDING.group_of(inputs), 1, 0.0, deadline)


def picture(height: int, width: int) -> Part:
    inputs = {"x": np.zeros((1, height, width), "<f4")}
    return Part(inputs, 1, 1, OF_PICTURES.group_of(inputs), 1, 0.0, inf)


def length(each: Part) -> int:
    return each.inputs["x"].shape[1]


def waiting(parts: Sequence[Part]) -> Levels:
    levels = Levels()
    for each in parts:
        levels.add(each)
    return levels


def next_batch(levels: Levels, cuts: RaggedCuts, max_rows: int, now: float = 0.0) -> list[Part]:
    def cost(rows: int, shape: object) -> float:
        assert isinstance(shape, RaggedGroup)
        return cuts.plane.seconds(rows, shape.elements)

    shape = next(iter(levels)).group
    assert isinstance(shape, RaggedGroup)
    packed, late = cuts.pack(levels, shape, max_rows, now, cost)
    levels.take(packed, now)
    for each in late:
        levels.remove(each)
    return packed


def batches(sizes: Sequence[int], ends: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    for end in ends:
        yield list(range(start, end))
        start = end


def seconds(
    rows: Sequence[int], elements: Sequence[int], ends: Sequence[int], costs: Plane
) -> float:
    return sum(
        costs.seconds(sum(rows[index] for index in batch), elements[batch[-1]])
        for batch in batches(rows, ends)
    )


def fits(
    rows: Sequence[int], elements: Sequence[int], ends: Sequence[int], most: int, limit: int
) -> bool:
    for batch in batches(rows, ends):
        filled = sum(rows[index] for index in batch)
        if filled > most or (len(batch) > 1 and filled * elements[batch[-1]] > limit):
            return False
    return True


@given(
    parts_of_windows,
    st.integers(3, 9),
    st.integers(4, 60),
    st.integers(0, 30),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_no_other_cuts_take_less_time_within_the_limits_and_each_row_is_in_one_batch(
    window: list[tuple[int, int]], most: int, limit: int, base: int, per_row: int, per_element: int
) -> None:
    window = sorted(window, key=lambda each: each[1])
    rows, elements = [each[0] for each in window], [each[1] for each in window]
    costs = plane(base, per_row, per_element)
    ends, found = optimal_cuts(rows, [(each,) for each in elements], most, limit, costs)
    assert ends[-1] == len(rows)
    assert ends == sorted(set(ends))
    assert fits(rows, elements, ends, most, limit)
    inner = range(1, len(rows))
    every = [[*cuts, len(rows)] for n in range(len(rows)) for cuts in combinations(inner, n)]
    best = min(
        seconds(rows, elements, other, costs)
        for other in every
        if fits(rows, elements, other, most, limit)
    )
    assert found == pytest.approx(best)
    assert seconds(rows, elements, ends, costs) == pytest.approx(best)


pictures_of_windows = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=7
)


@given(pictures_of_windows, st.integers(3, 9), st.integers(4, 60), st.integers(0, 30))
def test_cuts_of_rows_with_two_lengths_count_the_greatest_of_each(
    window: list[tuple[int, int, int]], most: int, limit: int, base: int
) -> None:
    rows, sizes = [each[0] for each in window], [each[1:] for each in window]
    costs = plane(base, 1, 1)

    def batch_of(begin: int, end: int) -> tuple[int, int]:
        height, width = (max(axis) for axis in zip(*sizes[begin:end], strict=True))
        return sum(rows[begin:end]), height * width

    def allowed(begin: int, end: int) -> bool:
        filled, elements = batch_of(begin, end)
        return end - begin == 1 or (filled <= most and filled * elements <= limit)

    def time_of(ends: Sequence[int]) -> float:
        return sum(costs.seconds(*batch_of(*each)) for each in pairwise([0, *ends]))

    ends, found = optimal_cuts(rows, sizes, most, limit, costs)
    assert all(allowed(*each) for each in pairwise([0, *ends]))
    inner = range(1, len(rows))
    every = [[*cuts, len(rows)] for n in range(len(rows)) for cuts in combinations(inner, n)]
    best = min(
        time_of(each) for each in every if all(allowed(*one) for one in pairwise([0, *each]))
    )
    assert found == pytest.approx(best)
    assert time_of(ends) == pytest.approx(best)


def test_tall_and_wide_pictures_go_apart() -> None:
    shapes = [(100, 10 + each) if each % 2 else (10 + each, 100) for each in range(8)]
    levels, cuts = waiting([picture(*shape) for shape in shapes]), RaggedCuts(plane(base=2000))
    tall = [each.inputs["x"].shape[1] == 100 for each in next_batch(levels, cuts, 8)]
    assert len(tall) == 4
    assert len(set(tall)) == 1


def test_a_small_base_keeps_lengths_apart_and_a_large_one_mixes_them() -> None:
    rows, elements = [1] * 8, [4, 4, 5, 5, 6, 7, 60, 61]
    sizes = [(each,) for each in elements]
    assert optimal_cuts(rows, sizes, 8, 1 << 40, plane(base=8))[0] == [6, 8]
    assert optimal_cuts(rows, sizes, 8, 1 << 40, plane(base=1e6))[0] == [8]


def test_rows_of_large_batches_are_planned_in_blocks_and_none_is_lost() -> None:
    parts = [part(1 + number % 200) for number in range(400)]
    levels, cuts = waiting(parts), RaggedCuts(plane(base=50))
    sent: list[Part] = []
    while levels.rows:
        batch = next_batch(levels, cuts, 256)
        assert 0 < len(batch) <= 256
        sent += batch
    assert len(sent) == len(set(sent)) == 400


def test_before_any_batch_has_run_all_that_fits_shares_a_batch() -> None:
    levels = waiting([part(5), part(50), part(500)])
    assert len(next_batch(levels, RaggedCuts(Plane()), 8)) == 3


def test_the_batch_with_the_request_whose_turn_it_is_goes_first() -> None:
    levels = waiting([part(60), part(4), part(5), part(61)])
    first = next_batch(levels, RaggedCuts(plane(base=1)), 8)
    assert [length(each) for each in first] == [60, 61]
    assert [length(each) for each in next_batch(levels, RaggedCuts(plane()), 8)] == [4, 5]


def test_a_batch_that_would_be_late_behind_another_goes_before_it() -> None:
    levels = waiting([part(60), part(4, deadline=20.0), part(5)])
    first = next_batch(levels, RaggedCuts(plane(base=1)), 8)
    assert [length(each) for each in first] == [4, 5]


def test_what_would_be_late_in_its_own_batch_is_shed() -> None:
    levels = waiting([part(60, deadline=20.0), part(4)])
    cuts = RaggedCuts(plane(base=1))
    assert next_batch(levels, cuts, 8) == []
    assert [length(each) for each in next_batch(levels, cuts, 8)] == [4]


def test_a_part_that_is_larger_than_any_batch_may_be_now_goes_alone() -> None:
    levels = waiting([part(5, rows=4), part(5)])
    assert [each.rows for each in next_batch(levels, RaggedCuts(plane()), 2)] == [4]


class Flood:
    """Rows that are sent while others come, beside the same number of rows in order of arrival.

    Attributes:
        sent: by batch, its parts.
    """

    def __init__(self, coming: Sequence[Part], most: int, waiting: int, base: float) -> None:
        """Let `coming` come such that about `waiting` rows wait; batches have `most` rows."""
        self._ends = np.cumsum([each.rows for each in coming])
        self._places = {each: index for index, each in enumerate(coming)}
        self._most = most
        self._rows = [0]  # rows in all batches up to each
        self.sent: list[list[Part]] = []
        rest, levels, cuts = list(coming), Levels(), RaggedCuts(plane(base))
        while rest or levels.rows:
            while rest and levels.rows < waiting:
                levels.add(rest.pop(0))
            self.sent.append(next_batch(levels, cuts, most))
            self._rows.append(self._rows[-1] + sum(each.rows for each in self.sent[-1]))

    def turn(self, each: Part) -> int:
        """Return in which batch `each` would be in order of arrival, with as many rows in each."""
        return int(np.searchsorted(self._rows, self._ends[self._places[each]])) - 1

    def rows_since_turn(self, each: Part, batch: int) -> int:
        """Return how many rows were sent after the place of `each` in order of arrival."""
        return self._rows[batch] - int(self._ends[self._places[each]])


coming_rows = st.lists(st.one_of(st.integers(1, 60), st.sampled_from([3, 50])), max_size=150)
floods = given(coming_rows, st.sampled_from([0, 5, 60, 500]), st.integers(2, 8), st.integers(1, 6))


@floods
def test_no_row_goes_later_than_three_full_batches_of_rows_after_its_turn(
    lengths: list[int], base: int, most: int, waiting: int
) -> None:
    flood = Flood([part(each) for each in lengths], most, waiting * most, base)
    assert sum(map(len, flood.sent)) == len(lengths)
    for number, batch in enumerate(flood.sent):
        assert 0 < len(batch) <= most
        for each in batch:
            assert flood.rows_since_turn(each, number) <= MAX_LATE * most


@floods
def test_the_longest_row_goes_at_most_three_batches_after_its_turn(
    lengths: list[int], base: int, most: int, waiting: int
) -> None:
    coming = [part(each) for each in lengths]
    outlier = part(512)
    coming.insert(len(coming) // 3, outlier)
    flood = Flood(coming, most, waiting * most, base)
    (number,) = [number for number, batch in enumerate(flood.sent) if outlier in batch]
    assert number <= flood.turn(outlier) + MAX_LATE


@pytest.mark.parametrize("base", [0, 5, 60, 500])
@pytest.mark.parametrize("seed", range(4))
def test_in_a_long_flood_of_random_lengths_no_row_and_no_outlier_goes_too_late(
    seed: int, base: int
) -> None:
    random, most = np.random.default_rng(seed), 16
    coming = [part(int(each)) for each in random.lognormal(3, 0.8, 500).clip(1, 200)]
    outliers = [part(512) for _ in range(4)]
    for number, outlier in enumerate(outliers):
        coming.insert(100 * (number + 1), outlier)
    flood = Flood(coming, most, 4 * most, base)
    for number, batch in enumerate(flood.sent):
        for each in batch:
            assert flood.rows_since_turn(each, number) <= MAX_LATE * most
            assert each not in outliers or number <= flood.turn(each) + MAX_LATE

"""Smaller requests first, for a bounded time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.lines import SizedLine
from batcher.batching.part import Part
from tests.support.scheduling import part, queue_of

STEP = 2.0


def line_of(*parts: Part) -> SizedLine:
    line = SizedLine(STEP)
    for each in parts:
        line[each] = None
    return line


arriving = st.lists(st.builds(part, rows=st.integers(1, 64), arrival=st.floats(0, 20)), max_size=30)


def counts_as(rows: int) -> float:
    """Return how much later a part of `rows` rows counts."""
    return STEP * (rows - 1).bit_length()


@given(parts=arriving, data=st.data())
def test_a_part_is_overtaken_only_by_smaller_ones_that_came_soon_enough_after_it(
    parts: list[Part], data: st.DataObject
) -> None:
    parts.sort(key=lambda each: each.arrival)
    line = line_of(*parts)
    gone = data.draw(st.lists(st.sampled_from(parts), unique_by=id)) if parts else []
    for each in gone:
        del line[each]
        assert each not in line
    left = [each for each in parts if each not in gone]
    served = list(line)
    assert (set(served), len(served), len(line)) == (set(left), len(left), len(left))
    for place, each in enumerate(served):
        overtaking = [other for other in served[:place] if left.index(other) > left.index(each)]
        for other in overtaking:
            assert (
                other.arrival - each.arrival <= counts_as(each.rows) - counts_as(other.rows) + 1e-9
            )
            assert other.rows < each.rows


def test_of_one_size_the_order_is_that_of_arrival() -> None:
    parts = [part(rows=rows, arrival=index / 10) for index, rows in enumerate((5, 8, 6, 7, 8))]
    assert list(line_of(*parts)) == parts


def test_a_queue_asked_for_it_packs_smaller_ones_first() -> None:
    large, small, late = part(rows=8), part(arrival=1.0), part(arrival=7.0)
    queue = queue_of(large, small, late, smaller_first=STEP)
    assert queue.pack("a", 64, 7.0) == [small, large, late], "8 rows count as come 6 seconds later"
    assert queue.oldest() is large
    assert queue_of(large, small, late).pack("a", 64, 7.0) == [large, small, late]


def test_a_large_request_under_a_flood_of_small_ones_waits_for_a_bounded_time() -> None:
    large = part(rows=8)
    queue = queue_of(large, smaller_first=STEP)
    now = 0.0
    while large in set(queue):
        now += 0.5
        for _ in range(8):
            queue.add(part(arrival=now))
        queue.take(queue.pack("a", 8, now), now)
    assert now == pytest.approx(3 * STEP, abs=1.0)


def test_what_is_before_a_request_is_what_it_does_not_overtake() -> None:
    smalls = [part(arrival=9.0) for _ in range(3)]
    larges = [part(rows=8, arrival=float(second)) for second in range(10)]
    queue = queue_of(*larges, *smalls, smaller_first=STEP)
    now = 10.0
    assert queue.rows_ahead(1, 8, now) == 83
    assert queue.rows_ahead(1, 64, now) == 83
    assert queue.rows_ahead(1, 1, now) == pytest.approx(3 + 32, abs=1), (
        "of the larger ones those of the first 4 seconds"
    )
    assert queue.rows_ahead(1, 4, now) == pytest.approx(3 + 64, abs=1)
    assert queue_of(*larges, *smalls).rows_ahead(1, 1, now) == 83

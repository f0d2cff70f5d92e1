"""The queue, step by step: room, order, removal, groups, and the shares of levels."""

from __future__ import annotations

from collections import Counter

import pytest

from batcher.batching.part import Part
from batcher.batching.queue import BatchQueue
from batcher.errors import QueueFull, TooLarge
from tests.support.scheduling import part, queue_of

WEIGHTS = {1: 4.0, 2: 2.0, 3: 1.0}
NOW = 0.0


def served(
    queue: BatchQueue, turns: int, max_rows: int = 8, refill: dict[int, int] | None = None
) -> Counter[int]:
    """Take `turns` batches at the head; return the rows of each level.

    `refill` keeps so many parts waiting a level.
    """
    rows: Counter[int] = Counter()
    for _ in range(turns):
        for level, parts in (refill or {}).items():
            for _ in range(parts - sum(waiting.level == level for waiting in queue)):
                queue.add(part(level=level))
        head = queue.head()
        assert head is not None
        taken = queue.pack(head.group, max_rows, NOW)
        queue.take(taken, NOW)
        queue.check_invariants()
        rows.update(
            {level: sum(each.rows for each in taken if each.level == level) for level in WEIGHTS}
        )
    return rows


def test_counters_follow_each_part_in_and_out() -> None:
    queue = BatchQueue(10, 100)
    first, second = part(rows=2, nbytes=20), part(rows=3, nbytes=5)
    assert (len(queue), queue.rows, queue.nbytes, queue.head()) == (0, 0, 0, None)
    queue.add(first)
    queue.check_invariants()
    assert (len(queue), queue.rows, queue.nbytes, queue.head()) == (1, 2, 20, first)
    queue.add(second)
    queue.check_invariants()
    assert (len(queue), queue.rows, queue.nbytes, queue.head()) == (2, 5, 25, first)
    assert queue.remove(first)
    queue.check_invariants()
    assert (len(queue), queue.rows, queue.nbytes, queue.head()) == (1, 3, 5, second)
    queue.take([second], NOW)
    queue.check_invariants()
    assert (len(queue), queue.rows, queue.nbytes, queue.head()) == (0, 0, 0, None)


def test_a_part_is_removed_only_once() -> None:
    first, second = part(), part()
    queue = queue_of(first, second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert not queue.remove(part())
    queue.check_invariants()
    assert list(queue) == [second]


def test_a_part_may_leave_from_the_middle_of_its_line() -> None:
    parts = [part() for _ in range(3)]
    queue = queue_of(*parts)
    queue.remove(parts[1])
    assert queue.pack("a", 8, NOW) == [parts[0], parts[2]]


def test_packing_takes_nothing_out() -> None:
    queue = queue_of(part(), part())
    assert queue.pack("a", 8, NOW) == queue.pack("a", 8, NOW)
    assert queue.rows == 2


def test_arrival_order_is_kept_within_a_level() -> None:
    parts = [part(arrival=float(index)) for index in range(6)]
    assert queue_of(*parts).pack("a", 4, NOW) == parts[:4]


def test_a_batch_ends_at_the_first_part_that_does_not_fit() -> None:
    small, large, late = part(rows=3), part(rows=2), part(rows=1)
    queue = queue_of(small, large, late)
    assert queue.pack("a", 4, NOW) == [small], "the last one would fit, but must not overtake"


def test_a_batch_is_of_one_group() -> None:
    odd, even = [part(group="odd") for _ in range(2)], [part(group="even") for _ in range(2)]
    queue = queue_of(odd[0], even[0], odd[1], even[1])
    assert queue.pack("odd", 8, NOW) == odd
    assert queue.pack("even", 8, NOW) == even
    assert queue.head() is odd[0]
    queue.take(odd, NOW)
    assert queue.head() is even[0]
    assert queue.group_rows("odd") == 0


def test_what_cannot_wait_makes_room_for_the_next() -> None:
    parts = [part(rows=2, deadline=deadline) for deadline in (1.0, 1.0, 2.0, 2.0, 1.0)]
    queue = queue_of(*parts)
    assert queue.pack_in_time("a", 4, NOW, 2.0) == (parts[2:4], parts[:2])


def test_the_oldest_part_is_found_over_levels_and_groups() -> None:
    oldest = part(arrival=1.0, level=2, group="b")
    assert (
        queue_of(oldest, part(arrival=2.0, level=2), part(arrival=3.0, level=1)).oldest() is oldest
    )
    assert queue_of().oldest() is None


def test_of_the_groups_of_one_level_with_enough_rows_the_one_that_waited_longest_is_found() -> None:
    queue = queue_of(
        part(rows=1, group="few"),
        part(rows=4, group="late", arrival=2.0),
        part(rows=5, group="old", arrival=1.0),
    )
    assert queue.group_of_at_least(4) == "old"
    assert queue.group_of_at_least(5) == "old"
    assert queue.group_of_at_least(6) is None


def test_of_the_groups_with_enough_rows_the_one_whose_level_is_due_is_found() -> None:
    queue = queue_of(
        part(rows=4, group="bulk", level=3), part(rows=4, group="urgent", level=1, arrival=1.0)
    )
    assert queue.group_of_at_least(4) == "urgent"
    queue.take(queue.pack("urgent", 4, NOW), NOW)
    queue.add(part(rows=4, group="urgent", level=1, arrival=2.0))
    assert queue.group_of_at_least(4) == "bulk", "level 1 has had its share"


@pytest.mark.parametrize(("rows", "nbytes"), [(3, 10), (1, 31)], ids=["rows", "bytes"])
def test_a_request_that_does_not_fit_now_finds_the_queue_full(rows: int, nbytes: int) -> None:
    queue = BatchQueue(4, 40)
    queue.add(part(rows=2, nbytes=10))
    with pytest.raises(QueueFull, match="2 of 4 rows, 10 of 40 bytes"):
        queue.check_room(rows, nbytes)
    queue.check_room(2, 30)


@pytest.mark.parametrize(("rows", "nbytes"), [(5, 1), (1, 41)], ids=["rows", "bytes"])
def test_a_request_that_never_fits_is_too_large_even_when_the_queue_is_full(
    rows: int, nbytes: int
) -> None:
    queue = BatchQueue(4, 40)
    queue.add(part(rows=4, nbytes=40))
    with pytest.raises(TooLarge, match=f"got {rows} rows and {nbytes} bytes"):
        queue.check_room(rows, nbytes)
    with pytest.raises(QueueFull):
        queue.check_room(4, 40)


def test_room_is_free_again_as_soon_as_a_part_has_left() -> None:
    queue = BatchQueue(4, 40)
    waiting = part(rows=4, nbytes=40)
    queue.add(waiting)
    queue.remove(waiting)
    queue.check_room(4, 40)


@pytest.mark.parametrize("max_rows", [1, 7, 64], ids="batches of {}".format)
def test_levels_get_the_shares_of_their_weights_over_a_long_run(max_rows: int) -> None:
    queue = queue_of(weight=WEIGHTS.__getitem__)
    rows = served(
        queue, turns=7000 // max_rows, max_rows=max_rows, refill=dict.fromkeys(WEIGHTS, max_rows)
    )
    total = rows.total()
    assert [rows[level] / total for level in (1, 2, 3)] == pytest.approx(
        [4 / 7, 2 / 7, 1 / 7], abs=0.01
    )


def test_shares_are_counted_in_rows_not_in_requests() -> None:
    queue = queue_of(weight=lambda level: 1.0)
    rows: Counter[int] = Counter()
    waiting = {1: 0, 2: 0}
    for _ in range(500):
        for level, size in ((1, 4), (2, 1)):
            while waiting[level] < 16:
                queue.add(part(rows=size, level=level))
                waiting[level] += size
        taken = queue.pack("a", 8, NOW)
        queue.take(taken, NOW)
        for each in taken:
            waiting[each.level] -= each.rows
            rows[each.level] += each.rows
    assert rows[1] / rows[2] == pytest.approx(1.0, abs=0.02)


def test_a_level_that_was_away_has_saved_up_nothing() -> None:
    queue = queue_of(weight=WEIGHTS.__getitem__)
    served(queue, turns=10, refill={1: 16, 3: 16})
    for gone in [each for each in queue if each.level == 1]:
        queue.remove(gone)
    served(queue, turns=200, refill={3: 8})
    rows = served(queue, turns=10, refill={1: 16, 3: 16})
    assert rows[1] / rows[3] == pytest.approx(4.0, rel=0.15), (
        "not all of it for the one that came back"
    )


def test_a_level_that_returns_to_an_empty_queue_has_saved_up_nothing() -> None:
    queue = queue_of(weight=lambda level: 1.0)
    served(queue, turns=100, refill={3: 8})
    for waiting in [*queue]:
        queue.remove(waiting)
    rows = served(queue, turns=10, refill={1: 16, 3: 16})
    assert abs(rows[1] - rows[3]) <= 8


def test_the_lowest_level_is_served_within_the_time_that_its_weight_promises() -> None:
    queue = queue_of(weight={1: 100.0, 3: 1.0}.__getitem__)
    served(queue, turns=5, refill={1: 8})
    waiting = part(level=3)
    queue.add(waiting)
    served(queue, turns=30, refill={1: 8})  # 240 rows: two and a half times its share
    assert waiting not in [*queue]


def test_a_lone_shape_is_not_starved_by_a_busy_one_on_a_higher_level() -> None:
    queue = queue_of(weight=WEIGHTS.__getitem__)
    waiting = part(group="rare", level=3)
    queue.add(waiting)
    groups = []
    for _ in range(20):
        while queue.group_rows("busy") < 16:
            queue.add(part(group="busy", level=1))
        head = queue.head()
        assert head is not None
        groups.append(head.group)
        queue.take(queue.pack(head.group, 8, NOW), NOW)
        queue.check_invariants()
    assert groups.count("rare") == 1
    assert groups.index("rare") < 5


def test_a_large_part_is_not_starved_by_small_ones() -> None:
    large = part(rows=8)
    queue = queue_of(part(), large)
    taken: list[Part] = []
    for _ in range(2):
        for _ in range(10):
            queue.add(part())
        batch = queue.pack("a", 8, NOW)
        queue.take(batch, NOW)
        taken += batch
    assert large in taken


def test_the_highest_of_levels_that_are_even_goes_first() -> None:
    low, high = part(level=3), part(level=1)
    queue = queue_of(low, high, weight=WEIGHTS.__getitem__)
    assert queue.head() is high
    assert queue.pack("a", 1, NOW) == [high]


def test_what_is_packed_first_is_the_part_whose_turn_it_is() -> None:
    queue = queue_of(weight=WEIGHTS.__getitem__)
    for index in range(40):
        queue.add(part(group="ab"[index % 2], level=1 + index % 3))
    while (head := queue.head()) is not None:
        batch = queue.pack(head.group, 3, NOW)
        assert batch[0] is head
        queue.take(batch, NOW)

"""Who would be answered too late is told so at the door.

Goodput does not fall with what is offered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from batcher.batching.admission import STALE_AFTER_S, Admission
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.part import Part
from batcher.batching.places import Places
from batcher.batching.policies.bulk import BULK
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import RERUN_REASONS
from batcher.errors import PredictedLate

ROWS = 4


def part(rows: int = 1, level: int = 1) -> Part:
    return Part({}, rows, 0, (), level, 0.0, 1e9)


@pytest.fixture
def admission() -> Admission:
    """Return an admission that knows: a batch takes 1 s and 0.25 s a row. The last came at 10 s."""
    cost = CostModel()
    for rows in (1, 2, 4):
        cost.add(rows, (), 1 + 0.25 * rows)
    found = Admission(cost, ROWS, 100, jitter=lambda: 0.5)
    found.note_batch(Batch([part(4)], bound_at=8.0), 8.0, 10.0, 2.0, failed=False)
    return found


def holding(batches: Iterable[Batch]) -> Places:
    places = Places()
    for batch in batches:
        places.put(batch, max(batch.bound_at, 10.0))
    return places


def queue_of(*levels: int, weight: Callable[[int], float] = lambda level: 1.0) -> BatchQueue:
    queue = BatchQueue(100, 1000, weight, bulk_level=9)
    for level in levels:
        queue.add(part(level=level))
    return queue


def asked(
    admission: Admission,
    deadline: float,
    queue: BatchQueue,
    now: float = 10.0,
    running: Any = (),
    level: int = 1,
    reruns: int = 0,
) -> bool:
    """Return whether one more row is let in at `now`."""
    try:
        admission.check(queue, holding(running), reruns, 1, level, (), now, deadline)
    except PredictedLate:
        return False
    return True


def test_a_request_is_let_in_as_long_as_its_own_batch_makes_it(admission: Admission) -> None:
    assert asked(admission, 10 + 1.35, queue_of())
    assert not asked(admission, 10 + 1.1, queue_of())


def test_batches_ahead_and_what_is_left_of_the_running_one_count(admission: Admission) -> None:
    waiting = queue_of(*[1] * 7)  # a whole batch, and a place in the next
    assert not asked(admission, 13.9, waiting)
    assert asked(admission, 14.3, waiting)
    running = [Batch([part(4)], bound_at=10.0)]
    assert not asked(admission, 14.3, waiting, now=10.5, running=running)
    assert asked(admission, 16.3, waiting, now=10.5, running=running)


def test_what_is_run_again_by_turns_with_what_is_before_it_counts(admission: Admission) -> None:
    waiting = queue_of(*[1] * 7)  # with its own row two whole batches
    one_row = 1.25
    assert not asked(admission, 13.9 + one_row, waiting, reruns=1)
    assert asked(admission, 14.3 + one_row, waiting, reruns=1)
    assert not asked(admission, 13.9 + 2 * one_row, waiting, reruns=100)
    assert asked(admission, 14.3 + 2 * one_row, waiting, reruns=100)


def test_batches_are_as_small_as_the_devices_memory_has_them(admission: Admission) -> None:
    waiting = queue_of(*[1] * 7)
    assert asked(admission, 14.3, waiting)
    admission.ceiling.note_overflow(4)
    assert not asked(admission, 15.8, waiting), "four batches of two rows, 1.5 s each"
    assert asked(admission, 16.3, waiting)


def test_what_its_level_overtakes_is_not_ahead_of_it(admission: Admission) -> None:
    waiting = queue_of(*[2] * 40, weight=lambda level: {1: 8.0, 2: 1.0}[level])
    assert asked(admission, 11.9, waiting, level=1)
    assert not asked(admission, 20.0, waiting, level=2)


def test_nothing_is_refused_where_nothing_is_known() -> None:
    assert asked(Admission(CostModel(), ROWS, 100), 10.0, queue_of(*[1] * 50))


def test_what_was_learnt_long_ago_keeps_nobody_out(admission: Admission) -> None:
    assert not asked(admission, 10.1, queue_of())
    assert asked(admission, 10.1 + 2 * STALE_AFTER_S, queue_of(), now=10 + 2 * STALE_AFTER_S)
    assert admission.cost(Places(), 10 + 2 * STALE_AFTER_S)(4, ()) == 0
    assert admission.cost(Places(), 10.0)(4, ()) > 1.9


def test_the_advice_follows_from_the_backlog_and_is_jittered(admission: Admission) -> None:
    with pytest.raises(
        PredictedLate, match=r"answered in about \d+\.\d+ s; its deadline is in 1.000 s"
    ) as caught:
        admission.check(queue_of(*[1] * 40), Places(), 0, 1, 1, (), 10.0, 11.0)
    assert 25 <= caught.value.retry_after <= 40  # some 20 s too late, and half of that
    assert admission.retry_after(0.01) == 1
    assert admission.retry_after(1e9) == 60


def test_failed_batches_teach_nothing(admission: Admission) -> None:
    before = admission.cost(Places(), 10.0)(4, ())
    admission.note_batch(Batch([part(4)], bound_at=10.0), 10.0, 30.0, 20.0, failed=True)
    assert admission.cost(Places(), 30.0)(4, ()) == before


def test_a_full_queue_says_when_to_come_back(admission: Admission) -> None:
    assert admission.retry_after() == 60, "28 batches of 2 s, and half of that"


def test_bulk_is_behind_all_that_waits_and_nothing_is_behind_bulk(admission: Admission) -> None:
    waiting = queue_of(*[1] * 3, *[9] * 4)  # with one more row two whole batches
    assert not asked(admission, 13.9, waiting, level=9)
    assert asked(admission, 14.3, waiting, level=9)
    assert asked(admission, 12.3, waiting, level=1)


@pytest.mark.parametrize("reason", [BULK, *RERUN_REASONS])
def test_bulk_and_reruns_do_not_pass_for_requests_that_will_join_another_batch(
    admission: Admission, reason: str
) -> None:
    for end in range(12, 100, 2):
        admission.note_batch(
            Batch([part(4)], reason, bound_at=end - 2.0), end - 2.0, float(end), 2.0, failed=False
        )
    running = [Batch([part(4)], reason, bound_at=98.0)]
    assert asked(admission, 98 + 2 + 1.5, queue_of(), now=98.0, running=running)

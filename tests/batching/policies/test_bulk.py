"""What bulk requests get.

Places that others leave, and all that there is when nobody else comes.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.part import Part
from batcher.batching.policies.bulk import MAX_SLOWDOWN, BulkLast
from batcher.batching.policies.delay import Delay
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import (
    Cost,
    Decision,
    Idle,
    Policy,
    Take,
    WaitUntil,
    WorkerState,
    no_cost,
)
from batcher.batching.queue import BatchQueue
from tests.support.scheduling import part, queue_of

BULK = 4
AFTER = 1.0
FREE = WorkerState(held=0, depth=2)
ONE_RUNS = WorkerState(held=1, depth=2)
DRAINING = WorkerState(held=0, depth=2, draining=True)
SIZE = 8


def linear(fixed: float, row: float) -> Cost:
    """Return a cost of `fixed` seconds a batch and `row` seconds a row."""
    return lambda rows, group: fixed + row * rows


def bulk_queue(*parts: Part) -> BatchQueue:
    return queue_of(*parts, bulk_level=BULK)


def bulk(count: int = 1, **more: Any) -> list[Part]:
    return [part(level=BULK, **more) for _ in range(count)]


def others(count: int = 1, **more: Any) -> list[Part]:
    return [part(**more) for _ in range(count)]


def decide(
    *parts: Part,
    worker: WorkerState = FREE,
    now: float = 0.0,
    cost: Cost = no_cost,
    policy: Policy | None = None,
) -> Decision:
    queue = bulk_queue(*parts)
    decision = BulkLast(policy or Eager(SIZE), AFTER).decide(queue, worker, now, cost)
    queue.check_invariants()
    assert set(queue) == set(parts), "deciding changes nothing"
    return decision


def levels(decision: Decision) -> tuple[int, int]:
    """Return how many parts of others and of bulk are taken."""
    assert isinstance(decision, Take), decision
    filled = sum(each.level == BULK for each in decision.parts)
    assert all(each.level == BULK for each in decision.parts[len(decision.parts) - filled :]), (
        "bulk stands at the end"
    )
    return len(decision.parts) - filled, filled


@pytest.mark.parametrize(
    ("cost", "filled"),
    [
        (no_cost, 6),
        (linear(1.0, 0.0), 6),
        (linear(1.0, 0.01), 5),
        (linear(1.0, 0.03), 1),
        (linear(1.0, 0.1), 0),
        (lambda rows, group: 0.0 if rows < 4 else 1.0, 1),
    ],
    ids=[
        "unknown",
        "the same for any size",
        "a hundredth a row",
        "three",
        "a tenth a row",
        "unknown for small ones",
    ],
)
def test_bulk_fills_a_batch_as_far_as_it_takes_hardly_longer(cost: Cost, filled: int) -> None:
    assert levels(decide(*bulk(9), *others(2), cost=cost)) == (2, filled)


def test_a_filled_batch_keeps_its_reason() -> None:
    decision = decide(*bulk(9), *others(2))
    assert isinstance(decision, Take)
    assert decision.reason == "idle"


def test_a_full_batch_holds_no_bulk() -> None:
    assert levels(decide(*bulk(9), *others(9))) == (8, 0)


def test_bulk_of_another_shape_fills_nothing() -> None:
    assert levels(decide(*bulk(9, group="b"), *others(2))) == (2, 0)


def test_bulk_that_does_not_fit_is_not_overtaken() -> None:
    assert levels(decide(*bulk(1, rows=7), *bulk(3), *others(2))) == (2, 0)


def test_bulk_makes_no_other_request_late() -> None:
    cost = linear(1.0, 0.001)
    assert levels(decide(*bulk(9), part(deadline=1.0035), cost=cost)) == (1, 2)


def test_bulk_that_a_filled_batch_would_answer_late_is_dropped() -> None:
    late, good = bulk(2, deadline=0.5), bulk(2, deadline=2.0)
    decision = decide(*late, *good, *others(1), cost=linear(1.0, 0.0))
    assert isinstance(decision, Take)
    assert (decision.parts[1:], decision.shed) == (good, late)


def test_bulk_fills_a_batch_in_the_second_place_and_never_makes_one_there() -> None:
    assert levels(decide(*bulk(9), part(rows=7), part(rows=7), worker=ONE_RUNS)) == (1, 1)
    assert decide(*bulk(99), worker=ONE_RUNS, now=9.0) == Idle([])
    assert decide(*bulk(99), *others(2), worker=ONE_RUNS) == Idle([]), (
        "what can grow is not bound, whatever bulk waits"
    )


def test_bulk_decides_nothing_of_which_shape_is_sent() -> None:
    decision = decide(*bulk(9, group="b"), part(group="a", arrival=1.0), now=9.0)
    assert isinstance(decision, Take)
    assert {each.group for each in decision.parts} == {"a"}


def test_alone_bulk_waits_until_nothing_else_has_come_for_a_while() -> None:
    queue = bulk_queue(*others(1, arrival=5.0), *bulk(9))
    policy = BulkLast(Eager(SIZE), AFTER)
    taken = policy.decide(queue, FREE, 5.0, linear(1.0, 1.0))
    assert levels(taken) == (1, 0)
    assert isinstance(taken, Take)
    queue.take(taken.parts, 5.0)
    assert policy.decide(queue, FREE, 5.5, no_cost) == WaitUntil(5.0 + AFTER, "bulk", [])
    alone = policy.decide(queue, FREE, 5.0 + AFTER, no_cost)
    assert levels(alone) == (0, SIZE)
    assert isinstance(alone, Take)
    assert alone.reason == "bulk"
    assert levels(policy.decide(queue, DRAINING, 5.5, no_cost)) == (0, SIZE), (
        "nobody will come any more"
    )


def test_bulk_waits_for_nothing_if_nobody_else_has_ever_come() -> None:
    assert levels(decide(*bulk(3))) == (0, 3)


def test_alone_bulk_is_shed_by_its_deadline_like_others() -> None:
    late, good = bulk(2, deadline=0.5), bulk(2, deadline=2.0)
    decision = decide(*late, *good, cost=linear(1.0, 0.0))
    assert decision == Take(good, "bulk", late)
    assert decide(*late, cost=linear(1.0, 0.0)) == Idle(late)


def test_under_delay_bulk_neither_ends_nor_fills_a_wait() -> None:
    policy = Delay(SIZE, 4.0)
    waiting = [*others(2), *bulk(20, deadline=3.0)]
    assert decide(*waiting, now=2.0, policy=policy) == WaitUntil(4.0, "waited", [])
    assert levels(decide(*waiting, now=4.0, policy=policy)) == (2, 0), "its deadline has passed"
    assert levels(decide(*others(2), *bulk(20), now=4.0, policy=policy)) == (2, 6)


groups = st.sampled_from("ab")


@given(
    waiting=st.lists(
        st.builds(
            part,
            rows=st.integers(1, 9),
            level=st.integers(1, BULK),
            group=groups,
            deadline=st.floats(0, 5),
        )
    ),
    worker=st.sampled_from([FREE, ONE_RUNS, DRAINING]),
    fixed=st.sampled_from([0.0, 1.0]),
    row=st.sampled_from([0.0, 0.01, 0.1]),
    delay=st.sampled_from([None, 0.5]),
    now=st.sampled_from([0.0, 0.75, 2.0]),
)
def test_others_get_what_they_would_without_bulk_and_hardly_later(
    waiting: list[Part],
    worker: WorkerState,
    fixed: float,
    row: float,
    delay: float | None,
    now: float,
) -> None:
    inner: Policy = Eager(SIZE) if delay is None else Delay(SIZE, delay)
    cost = linear(fixed, row)
    decision = decide(*waiting, worker=worker, now=now, cost=cost, policy=inner)
    without = inner.decide(
        queue_of(*(each for each in waiting if each.level != BULK)), worker, now, cost
    )
    filling = [each for each in taken_by(decision) if each.level == BULK]
    assert [each for each in taken_by(decision) if each.level != BULK] == taken_by(without)
    assert [each for each in decision.shed if each.level != BULK] == without.shed
    if taken_by(without):
        assert isinstance(decision, Take)
        check_filled(taken_by(without), filling, cost, now)
    elif any(each.level != BULK for each in waiting) or worker.held:
        assert decision == without, "bulk changes nothing"
    assert all(each.deadline >= now + fixed for each in filling)


def taken_by(decision: Decision) -> list[Part]:
    return decision.parts if isinstance(decision, Take) else []


def check_filled(own: list[Part], filling: list[Part], cost: Cost, now: float) -> None:
    group: Hashable = own[0].group
    rows = sum(each.rows for each in own)
    filled = rows + sum(each.rows for each in filling)
    assert filled <= SIZE or (len(own) == 1 and not filling), (
        "what is too large for a batch stands alone"
    )
    assert {each.group for each in filling} <= {group}
    assert cost(filled, group) <= MAX_SLOWDOWN * cost(rows, group)
    assert not filling or all(each.deadline >= now + cost(filled, group) for each in own)

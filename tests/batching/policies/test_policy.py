"""What each policy decides, as tables, and what it drops."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.batching.part import Part
from batcher.batching.policies.deferred import Deferred
from batcher.batching.policies.delay import Delay
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import (
    Decision,
    Idle,
    Policy,
    Take,
    WaitUntil,
    WorkerState,
    no_cost,
)
from tests.support.scheduling import part, queue_of

FREE = WorkerState(held=0, depth=2)
ONE_RUNS = WorkerState(held=1, depth=2)
BOTH_TAKEN = WorkerState(held=2, depth=2)
ONLY_TAKEN = WorkerState(held=1, depth=1)
DRAINING = WorkerState(held=0, depth=2, draining=True)
DELAY = 8.0


def decide(
    policy: Policy,
    parts: list[Part],
    worker: WorkerState = FREE,
    now: float = 0.0,
    cost: float = 0.0,
) -> Decision:
    """Return the decision over a queue of `parts`, where a batch costs `cost` seconds a row.

    Nothing may be changed by it.
    """
    queue = queue_of(*parts)
    decision = policy.decide(queue, worker, now, lambda rows, group: cost * rows)
    queue.check_invariants()
    assert set(queue) == set(parts), "deciding changes nothing"
    return decision


def taken(decision: Decision) -> tuple[int, str]:
    """Return rows and reason of a Take."""
    assert isinstance(decision, Take), decision
    return sum(each.rows for each in decision.parts), decision.reason


def singles(count: int, **more: Any) -> list[Part]:
    """Return `count` parts of one row."""
    return [part(**more) for _ in range(count)]


@pytest.mark.parametrize(
    ("parts", "worker", "expected"),
    [
        (singles(1), FREE, (1, "idle")),
        (singles(3), FREE, (3, "idle")),
        (singles(4), FREE, (4, "full")),
        (singles(9), FREE, (4, "full")),
        ([part(rows=3), part(rows=3)], FREE, (3, "full")),
        (singles(2, group="a") + singles(1, group="b"), FREE, (2, "shape")),
        (singles(4, group="a") + singles(1, group="b"), FREE, (4, "full")),
        (singles(5), ONE_RUNS, (4, "full")),
        (singles(4), ONE_RUNS, (4, "full")),
        ([part(rows=3), part(rows=3)], ONE_RUNS, (3, "full")),
    ],
    ids=[
        "one row goes at once",
        "what is there goes at once",
        "a full batch",
        "at most a full batch",
        "a batch that cannot grow is full",
        "others wait in another shape",
        "full beats shape",
        "a full batch fills the second place",
        "exactly a full batch fills the second place",
        "a batch that cannot grow fills the second place",
    ],
)
def test_eager_sends(parts: list[Part], worker: WorkerState, expected: tuple[int, str]) -> None:
    assert taken(decide(Eager(4), parts, worker)) == expected


@pytest.mark.parametrize(
    ("parts", "worker"),
    [([], FREE), (singles(3), ONE_RUNS), (singles(9), BOTH_TAKEN), (singles(9), ONLY_TAKEN)],
    ids=[
        "nothing waits",
        "a batch could still grow",
        "both places are taken",
        "the only place is taken",
    ],
)
def test_eager_sends_nothing_while(parts: list[Part], worker: WorkerState) -> None:
    assert decide(Eager(4), parts, worker) == Idle([])


def test_eager_counts_only_one_shape_towards_a_full_batch() -> None:
    parts = singles(3, group="a") + singles(3, group="b")
    assert decide(Eager(4), parts, ONE_RUNS) == Idle([])


def test_eager_takes_the_group_whose_turn_it_is() -> None:
    decision = decide(Eager(4), [part(group="a", level=2), part(group="b", level=1)])
    assert isinstance(decision, Take)
    assert [each.group for each in decision.parts] == ["b"]


@pytest.mark.parametrize(
    ("parts", "worker", "now", "expected"),
    [
        (singles(4), FREE, 0.0, (4, "full")),
        (singles(9), FREE, 0.0, (4, "full")),
        ([part(rows=3), part(rows=3)], FREE, 0.0, (3, "full")),
        (singles(4), ONE_RUNS, 0.0, (4, "full")),
        (singles(1), FREE, DELAY, (1, "waited")),
        (singles(3), FREE, DELAY + 1, (3, "waited")),
        (singles(2), DRAINING, 1.0, (2, "drain")),
        ([*singles(2), part(deadline=DELAY - 1)], FREE, 1.0, (3, "deadline")),
        ([*singles(2), part(deadline=DELAY)], FREE, 1.0, (3, "deadline")),
    ],
    ids=[
        "a full batch",
        "at most a full batch",
        "a batch that cannot grow",
        "a full batch fills the second place",
        "when the oldest has waited long enough",
        "when the oldest has waited too long",
        "at once when the server drains",
        "when one would expire while waiting",
        "when one would expire just as the wait ends",
    ],
)
def test_delay_sends(
    parts: list[Part], worker: WorkerState, now: float, expected: tuple[int, str]
) -> None:
    assert taken(decide(Delay(4, DELAY), parts, worker, now)) == expected


@pytest.mark.parametrize(
    ("parts", "worker", "now"),
    [
        ([], FREE, 0.0),
        (singles(3), ONE_RUNS, DELAY + 1),
        (singles(9), BOTH_TAKEN, 0.0),
        (singles(3), WorkerState(1, 2, draining=True), 0.0),
    ],
    ids=[
        "nothing waits",
        "an old batch could still grow",
        "both places are taken",
        "a draining worker is busy",
    ],
)
def test_delay_neither_sends_nor_wakes_while(
    parts: list[Part], worker: WorkerState, now: float
) -> None:
    assert decide(Delay(4, DELAY), parts, worker, now) == Idle([])


def test_delay_waits_from_the_oldest_arrival() -> None:
    parts = [part(arrival=2.0), part(arrival=5.0)]
    assert decide(Delay(4, DELAY), parts, now=6.0) == WaitUntil(2.0 + DELAY, "waited", [])


def test_delay_reckons_with_the_cost_of_the_batch_when_a_deadline_is_near() -> None:
    parts = [part(), part(deadline=DELAY + 2)]
    assert decide(Delay(4, DELAY), parts, cost=0.5) == WaitUntil(DELAY, "waited", [])
    assert taken(decide(Delay(4, DELAY), parts, cost=1.0)) == (2, "deadline")


def test_a_full_batch_does_not_wait_behind_the_head_of_another_shape() -> None:
    parts = [part(group="a"), *singles(4, group="b", arrival=1.0)]
    for worker in (FREE, ONE_RUNS):
        decision = decide(Delay(4, DELAY), parts, worker, now=1.0)
        assert taken(decision) == (4, "full")
        assert isinstance(decision, Take)
        assert {each.group for each in decision.parts} == {"b"}


def test_a_head_whose_wait_is_over_is_not_passed_by_a_full_batch_of_another_shape() -> None:
    parts = [part(group="a"), *singles(4, group="b", arrival=1.0)]
    decision = decide(Delay(4, DELAY), parts, now=DELAY)
    assert isinstance(decision, Take)
    assert {each.group for each in decision.parts} == {"a"}, "or a busy shape would starve it"


def test_of_two_full_batches_that_of_the_level_whose_turn_it_is_goes_first() -> None:
    parts = [*singles(4, group="bulk", level=3), *singles(4, group="urgent", level=1, arrival=1.0)]
    decision = decide(Delay(4, DELAY), parts, now=1.0)
    assert isinstance(decision, Take)
    assert {each.group for each in decision.parts} == {"urgent"}


def test_the_delay_counts_from_the_oldest_arrival_whatever_its_shape_and_level() -> None:
    parts = [part(group="bulk", level=3, arrival=0.0), part(group="urgent", level=1, arrival=6.0)]
    assert decide(Delay(4, DELAY), parts, now=6.0) == WaitUntil(DELAY, "waited", [])
    assert taken(decide(Delay(4, DELAY), parts, now=DELAY)) == (1, "waited")


def test_a_deadline_in_another_shape_ends_the_wait_of_an_idle_worker() -> None:
    parts = [part(group="a"), part(group="b", arrival=1.0, deadline=4.0)]
    decision = decide(Delay(4, DELAY), parts, now=1.0)
    if isinstance(decision, WaitUntil):
        assert decision.time < 4.0, "it would expire beside a worker that has nothing to do"
    else:
        assert isinstance(decision, Take)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8)],
    ids="{} waiting".format,
)
def test_delay_sends_the_largest_preferred_size_that_is_reached(count: int, expected: int) -> None:
    assert taken(decide(Delay(8, DELAY, (4, 2)), singles(count))) == (expected, "full")


def test_delay_waits_below_the_smallest_preferred_size() -> None:
    assert decide(Delay(8, DELAY, (4, 2)), singles(1)) == WaitUntil(DELAY, "waited", [])


def test_a_preferred_size_does_not_hold_back_a_request_that_is_larger() -> None:
    decision = decide(Delay(8, DELAY, (2,)), [part(rows=3)], now=DELAY)
    assert taken(decision)[0] == 3, "its wait is over"


def test_a_request_larger_than_the_preferred_size_still_has_its_time_watched() -> None:
    decision = decide(Delay(8, DELAY, (2,)), [part(rows=3)], now=1.0)
    assert not isinstance(decision, Idle), "nothing would ever send it"


def test_a_preferred_size_alone_does_not_fill_the_second_place() -> None:
    assert decide(Delay(8, DELAY, (2,)), singles(4), ONE_RUNS) == Idle([])


POLICIES = [Eager(2), Delay(2, DELAY), Deferred(2, DELAY, lambda rows, group: float(rows))]
NAMES = ["eager", "delay", "deferred"]


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_heads_that_would_miss_their_deadline_are_dropped_and_their_places_given_away(
    policy: Policy,
) -> None:
    late, good = singles(2, deadline=1.5), singles(2, deadline=9.0)
    decision = decide(policy, [*late, *good], cost=1.0)
    assert decision == Take(good, "full", late)


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_a_batch_is_not_shrunk_to_rescue_an_old_head(policy: Policy) -> None:
    old, young = (
        part(deadline=1.5),
        part(),
    )  # alone, in 1 second, it would make it; the batch of two takes 2
    decision = decide(policy, [old, young], cost=1.0)
    assert isinstance(decision, Take)
    assert (decision.parts, decision.shed) == ([young], [old])


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_a_deadline_that_is_just_met_is_kept(policy: Policy) -> None:
    just = singles(2, deadline=5.0)
    decision = decide(policy, just, now=3.0, cost=1.0)
    assert isinstance(decision, Take)
    assert (decision.parts, decision.shed) == (just, [])


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_when_none_can_make_it_all_are_dropped_and_nothing_is_sent(policy: Policy) -> None:
    late = singles(5, deadline=1.5)
    assert decide(policy, late, cost=1.0) == Idle(late)


class LookedUp:
    """A shape that counts how often its parts are looked for."""

    count = 0

    def __hash__(self) -> int:
        """Count."""
        self.count += 1
        return 1


@pytest.mark.parametrize("policy", [Eager(1), Delay(1, DELAY)], ids=["eager", "delay"])
def test_however_many_are_too_late_one_walk_finds_them(policy: Policy) -> None:
    shape = LookedUp()
    late = singles(100, group=shape, deadline=1.5)
    queue = queue_of(*late)
    shape.count = 0
    assert policy.decide(queue, FREE, 1.0, lambda rows, group: 1.0) == Idle(late)
    assert shape.count < 10


def test_the_batch_that_judges_is_no_larger_than_what_waits() -> None:
    parts = singles(2, deadline=2.5)
    assert taken(decide(Eager(64), parts, cost=1.0)) == (2, "idle")


def test_without_an_estimate_only_what_has_expired_is_dropped() -> None:
    expired, just = part(deadline=0.9), part(deadline=1.0)
    decision = Eager(4).decide(queue_of(expired, just), FREE, 1.0, no_cost)
    assert isinstance(decision, Take)
    assert (decision.parts, decision.shed) == ([just], [expired])


def test_dropped_rows_do_not_make_a_batch_look_full() -> None:
    late, good = part(deadline=0.5), part()
    assert taken(decide(Eager(4), [late, good], now=1.0)) == (1, "idle")


def test_nothing_is_dropped_while_no_batch_is_about_to_run() -> None:
    parts = singles(3, deadline=0.5)
    assert decide(Eager(4), parts, ONE_RUNS, now=1.0) == Idle([]), (
        "the scheduler's clock answers those that expired"
    )


def test_eager_waits_for_clients_that_return_until_they_are_there() -> None:
    returning = WorkerState(held=0, depth=2, wait_until=3.0, wait_rows=4)
    assert decide(Eager(8), singles(2), returning, now=1.0) == WaitUntil(3.0, "waited", [])
    assert taken(decide(Eager(8), singles(4), returning, now=1.0)) == (4, "waited")
    assert taken(decide(Eager(8), singles(2), returning, now=3.0)) == (2, "waited")
    assert taken(decide(Eager(2), singles(2), returning, now=1.0)) == (2, "full")


def test_eager_waits_for_nobody_if_a_request_would_be_late_or_another_shape_waits() -> None:
    returning = WorkerState(held=0, depth=2, wait_until=3.0, wait_rows=4)
    urgent = [part(), part(deadline=6.9)]
    assert taken(decide(Eager(8), urgent, returning, now=1.0, cost=1.0))[0] == 2
    shapes = [part(group="a"), part(group="b")]
    assert isinstance(decide(Eager(8), shapes, returning, now=1.0), Take)

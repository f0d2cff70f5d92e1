"""A batch starts at the latest moment that meets its deadlines, and not before."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from batcher.batching.part import Part
from batcher.batching.policies.deferred import SHARE, SLACK, Deferred
from batcher.batching.policies.policy import (
    NOTHING_TO_DO,
    Cost,
    Decision,
    Take,
    WaitUntil,
    WorkerState,
    no_cost,
)
from batcher.errors import PredictedLate
from tests.support.scheduling import Harness, part, queue_of

FREE = WorkerState(held=0, depth=2)
ONE_RUNS = WorkerState(held=1, depth=2)
SLO = 40.0
DUE = SHARE * SLO


def seconds(rows: int, group: Hashable = ()) -> float:
    return 2.0 + 0.25 * rows


def given(rows: int) -> float:
    """Return the seconds before its deadline at which a batch of `rows` rows starts."""
    return SLACK * seconds(rows)


def decide(
    parts: list[Part], worker: WorkerState = FREE, now: float = 0.0, cost: Cost = seconds
) -> Decision:
    queue = queue_of(*parts)
    decision = Deferred(8, SLO, seconds).decide(queue, worker, now, cost)
    queue.check_invariants()
    assert set(queue) == set(parts), "deciding changes nothing"
    return decision


def start(parts: list[Part], cost: Cost = seconds) -> float:
    decision = decide(parts, cost=cost)
    assert isinstance(decision, WaitUntil), decision
    assert decision.reason == "deadline"
    return decision.time


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_batch_starts_so_that_it_ends_just_before_the_default_deadline(rows: int) -> None:
    parts = [part(arrival=1.0) for _ in range(rows)]
    # one row more may come at the last moment
    assert start(parts) == pytest.approx(1.0 + DUE - given(rows + 1))


def test_an_earlier_deadline_of_one_request_is_met() -> None:
    assert start([part(), part(deadline=9.0)]) == pytest.approx(SHARE * 9.0 - given(3))


def test_a_later_deadline_is_a_safety_and_no_wish_to_wait() -> None:
    assert start([part(deadline=1000.0)]) == pytest.approx(DUE - given(2))


def test_an_estimate_that_grew_above_its_usual_margin_starts_the_batch_earlier() -> None:
    assert start([part()], cost=lambda rows, group: 10.0) == pytest.approx(DUE - 10.0)


def test_after_a_pause_in_which_the_server_trusts_no_estimate_the_batch_is_not_late() -> None:
    assert start([part()], cost=no_cost) == pytest.approx(DUE - given(2))


def test_batches_of_several_shapes_start_one_behind_the_other_before_the_last_is_due() -> None:
    parts = [part(group="a"), part(group="b", arrival=1.0), part(group="c", arrival=30.0)]
    assert start(parts) == pytest.approx(min(DUE, 1.0 + DUE - given(2)) - given(2))
    decision = decide(parts, now=DUE - given(2))
    assert isinstance(decision, Take)
    assert [each.group for each in decision.parts] == ["a"], "the first that is due"


def test_at_its_start_a_batch_takes_all_that_wait_in_its_shape() -> None:
    parts = [part(arrival=float(number)) for number in range(3)]
    assert decide(parts, now=DUE - given(4)) == Take(parts, "deadline", [])


@pytest.mark.parametrize(
    ("parts", "worker", "reason"),
    [
        ([part() for _ in range(8)], FREE, "full"),
        ([part() for _ in range(8)], ONE_RUNS, "full"),
        ([part(group="a"), *(part(group="b") for _ in range(8))], FREE, "full"),
        ([part()], WorkerState(held=0, depth=2, draining=True), "drain"),
    ],
    ids=[
        "a full batch gains nothing by a wait",
        "a full batch fills the second place",
        "a full batch of another shape",
        "nobody else will come",
    ],
)
def test_no_wait_is_made_for(parts: list[Part], worker: WorkerState, reason: str) -> None:
    decision = decide(parts, worker)
    assert isinstance(decision, Take)
    assert decision.reason == reason


def test_a_batch_of_unknown_time_runs_at_once_so_that_its_time_is_learnt() -> None:
    queue = queue_of(part())
    decision = Deferred(8, SLO, no_cost).decide(queue, FREE, 0.0, no_cost)
    assert isinstance(decision, Take)


@pytest.mark.parametrize(
    ("parts", "worker", "now"),
    [
        ([], FREE, 0.0),
        ([part()], ONE_RUNS, SLO),
        ([part() for _ in range(9)], WorkerState(held=2, depth=2), SLO),
    ],
    ids=["nothing waits", "a batch that could grow", "both places are taken"],
)
def test_nothing_is_sent_while(parts: list[Part], worker: WorkerState, now: float) -> None:
    assert decide(parts, worker, now) == NOTHING_TO_DO


def test_a_head_of_a_shape_that_is_due_is_not_passed_by_a_full_batch_of_another() -> None:
    parts = [part(group="a"), *(part(group="b", arrival=30.0) for _ in range(8))]
    decision = decide(parts, now=DUE - given(2))
    assert isinstance(decision, Take)
    assert {each.group for each in decision.parts} == {"a"}


def test_requests_share_the_last_moment_of_the_first_and_are_answered_in_time() -> None:
    harness = Harness(Deferred(8, SLO, seconds), cost=seconds, timeout=SLO)
    first = harness.submit(1)
    harness.turn(20.0)
    second = harness.submit(2)
    harness.turn(DUE - given(3) - 20.0 - 0.01)
    assert harness.events == [], "the device is free for others"
    harness.turn(0.01)
    assert harness.events == ["handed 2"]
    harness.turn(seconds(2))
    harness.finish()
    assert (first.values, second.values) == ([2], [4])
    assert harness.clock.seconds() <= SLO


def test_a_request_that_comes_too_late_for_the_batch_of_an_urgent_one_waits_for_its_own() -> None:
    harness = Harness(Deferred(8, SLO, seconds), cost=seconds, timeout=SLO)
    urgent = harness.submit(1, deadline=given(2) / SHARE)
    harness.turn()
    other = harness.submit(2)
    harness.turn(seconds(1))
    harness.finish()
    assert urgent.values == [2]
    assert other.waiting
    harness.turn(DUE - given(2) - seconds(1))
    harness.finish()
    assert other.values == [4]


def test_what_cannot_be_in_time_any_more_is_ended_and_harms_no_other() -> None:
    harness = Harness(Deferred(8, SLO, seconds), cost=seconds, timeout=SLO)
    late, good = harness.submit(1, deadline=1.0), harness.submit(2)
    harness.turn()
    assert isinstance(late.error, PredictedLate)
    harness.finish()
    assert good.values == [4]

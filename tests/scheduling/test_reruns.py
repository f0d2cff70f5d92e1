"""Batches that did not end well: what is run again, in which pieces, and how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from batcher.errors import DeviceLost, WorkerLost
from batcher.scheduling.batch import Batch
from batcher.scheduling.ceiling import Ceiling
from batcher.scheduling.part import Part
from batcher.scheduling.poison import Poison
from batcher.scheduling.reruns import ISOLATE, RETRY, Reruns
from tests.support.scheduling import part

RAISED = ValueError("raised")
BEGUN, NOT_BEGUN = WorkerLost("gone", begun=True), WorkerLost("gone", begun=False)


def batch(parts: int = 4) -> Batch:
    return Batch([part() for _ in range(parts)])


def anyone(_: Part) -> bool:
    return True


def take(reruns: Reruns) -> Batch:
    """Return the next one, which there must be."""
    taken = reruns.take(anyone, 7.0)
    assert taken is not None
    return taken


def reruns_of(max_batch_size: int, isolate: bool, retry: bool = False) -> Reruns:
    return Reruns(Ceiling(max_batch_size), Poison(0.0), isolate, retry)


def searched(reruns: Reruns, whole: Batch) -> int:
    """Return how often parts of `whole` are run again if nothing ever runs."""
    return rest_of_search(reruns) if reruns.take_up(whole, RAISED, uncut, 7.0) else 0


def rest_of_search(reruns: Reruns) -> int:
    runs = 0
    while reruns:
        runs += 1
        reruns.take_up(take(reruns), RAISED, uncut, 7.0)
    return runs


def uncut(part: Part) -> Sequence[Part]:
    return (part,)


def test_what_raised_comes_back_in_halves_in_the_order_of_its_rows() -> None:
    reruns, whole = reruns_of(4, isolate=True), batch(5)
    assert reruns.take_up(whole, RAISED, uncut, 7.0)
    assert [*reruns] == whole.parts
    halves = [take(reruns), take(reruns)]
    assert [half.parts for half in halves] == [whole.parts[:2], whole.parts[2:]]
    assert [(half.reason, half.bound_at) for half in halves] == [(ISOLATE, 7.0)] * 2
    assert reruns.take(anyone, 7.0) is None


@pytest.mark.parametrize(
    ("isolate", "parts", "error"),
    [(False, 4, RAISED), (True, 1, RAISED), (True, 4, DeviceLost("gone"))],
    ids=["off", "alone", "lost"],
)
def test_what_nothing_can_be_found_out_about_is_not_run_again(isolate: bool, parts: int, error: Exception) -> None:
    reruns = reruns_of(4, isolate=isolate, retry=True)
    assert not reruns.take_up(batch(parts), error, uncut, 7.0)
    assert not reruns


def test_halves_of_halves_share_one_budget() -> None:
    assert searched(reruns_of(4, isolate=True), batch(16)) == 2 * 4, "which is enough for one at fault"


def test_of_a_model_that_is_broken_as_a_whole_only_halves_are_tried_until_something_runs() -> None:
    reruns = reruns_of(16, isolate=True)
    runs = [searched(reruns, batch(16)) for _ in range(6)]
    assert (runs[0], runs[-1]) == (8, 2)
    assert sorted(runs, reverse=True) == runs
    reruns.succeeded(batch())
    assert searched(reruns, batch(16)) == 8


def test_one_at_fault_that_comes_again_and_again_alone_does_not_pass_for_a_broken_model() -> None:
    reruns = reruns_of(64, isolate=True)
    for _ in range(100):
        assert not reruns.take_up(batch(1), RAISED, uncut, 7.0)
    assert searched(reruns, batch(16)) == 8


def test_one_at_fault_in_each_batch_never_passes_for_a_broken_model() -> None:
    reruns = reruns_of(64, isolate=True)
    for _ in range(20):
        whole = batch(64)
        assert reruns.take_up(whole, RAISED, uncut, 7.0)
        failed = []
        while reruns:
            half = take(reruns)
            if whole.parts[-1] not in half.parts:
                reruns.succeeded(half)
            elif not reruns.take_up(half, RAISED, uncut, 7.0):
                failed += half.parts
        assert failed == [whole.parts[-1]]


def test_a_new_batch_has_a_budget_of_its_own() -> None:
    reruns = reruns_of(4, isolate=True)
    for _ in range(3):
        reruns.take_up(batch(16), RAISED, uncut, 7.0)
        while reruns:
            reruns.take_up(take(reruns), RAISED, uncut, 7.0)
    assert reruns.take_up(batch(2), RAISED, uncut, 7.0)


def test_what_had_not_begun_runs_again_as_it_was_as_often_as_that_happens() -> None:
    reruns, whole = reruns_of(4, isolate=False), batch()
    lost = whole
    for _ in range(20):
        assert reruns.take_up(lost, NOT_BEGUN, uncut, 7.0)
        lost = take(reruns)
        assert (lost.parts, lost.reason) == (whole.parts, RETRY)


@pytest.mark.parametrize("retry", [False, True])
def test_what_had_begun_runs_again_only_where_that_is_allowed_and_once(retry: bool) -> None:
    reruns = reruns_of(4, isolate=True, retry=retry)
    assert reruns.take_up(batch(), BEGUN, uncut, 7.0) is retry
    if retry:
        again = take(reruns)
        assert reruns.take_up(again, NOT_BEGUN, uncut, 7.0), "it did not run this time"
        assert not reruns.take_up(take(reruns), BEGUN, uncut, 7.0)
    assert not reruns


def test_halves_of_what_was_run_twice_are_not_run_twice() -> None:
    reruns = reruns_of(4, isolate=True, retry=True)
    reruns.take_up(batch(), BEGUN, uncut, 7.0)
    reruns.take_up(take(reruns), RAISED, uncut, 7.0)
    assert not reruns.take_up(take(reruns), BEGUN, uncut, 7.0)
    assert len(reruns) == 1, "the other half still waits"


def test_a_half_that_was_lost_is_still_searched_within_the_budget_of_the_whole() -> None:
    reruns = reruns_of(16, isolate=True)
    reruns.take_up(batch(16), RAISED, uncut, 7.0)
    assert reruns.take_up(take(reruns), NOT_BEGUN, uncut, 7.0)
    assert rest_of_search(reruns) == 8


def test_who_is_not_alive_any_more_is_left_out() -> None:
    reruns, whole = reruns_of(4, isolate=True), batch()
    reruns.take_up(whole, RAISED, uncut, 7.0)
    alive = whole.parts[3:]
    taken = reruns.take(lambda part: part in alive, 7.0)
    assert taken is not None
    assert taken.parts == alive, "of the first half nobody is left"
    assert not reruns


def test_what_succeeded_is_forgotten() -> None:
    reruns = reruns_of(4, isolate=True)
    reruns.take_up(batch(), RAISED, uncut, 7.0)
    half = take(reruns)
    reruns.succeeded(half)
    reruns.succeeded(take(reruns))
    assert not reruns._running

"""Batches that did not end well: what is run again, in which pieces, and how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.part import Part
from batcher.batching.poison import PoisonList
from batcher.batching.reruns import ISOLATE, RETRY, SEARCHES_BESIDE_FRESH_BATCHES, Reruns
from batcher.errors import DeviceLost, OutOfMemory, WorkerLost
from tests.support.scheduling import part

RAISED = ValueError("raised")
SIXTEEN = 2 * 4 + 1
"""Runs in which something of sixteen parts has to run well, besides the first."""
BEGUN, NOT_BEGUN = WorkerLost("gone", begun=True), WorkerLost("gone", begun=False)


def batch(parts: int = 4) -> Batch:
    return Batch([part() for _ in range(parts)])


def anyone(_: Part) -> bool:
    return True


def take(reruns: Reruns) -> Batch:
    """Return the next one, which there must be."""
    taken = reruns.next_batch(anyone, 7.0)
    assert taken is not None
    return taken


def goes_on(reruns: Reruns, batch: Batch, error: Exception) -> bool:
    """Return whether `batch`, which failed with `error`, is to be run again in some way."""
    failed = {*reruns.note_failure(batch, error, uncut, 7.0)}
    assert not failed or failed >= {*batch.parts}
    return not failed


def reruns_of(max_batch_size: int, isolate: bool, retry: bool = False) -> Reruns:
    return Reruns(Ceiling(max_batch_size), PoisonList(0.0), isolate, retry)


def searched(reruns: Reruns, whole: Batch) -> int:
    """Return how often parts of `whole` are run again if nothing ever runs."""
    return rest_of_search(reruns) if goes_on(reruns, whole, RAISED) else 0


def rest_of_search(reruns: Reruns) -> int:
    runs = 0
    while reruns:
        runs += 1
        goes_on(reruns, take(reruns), RAISED)
    return runs


def uncut(part: Part) -> Sequence[Part]:
    return (part,)


def test_of_eight_parts_the_third_is_found_in_the_six_runs_of_the_example() -> None:
    reruns, whole = reruns_of(8, isolate=True), batch(8)
    numbers = {each: number for number, each in enumerate(whole.parts, 1)}
    bad = whole.parts[2]
    assert goes_on(reruns, whole, RAISED)
    runs, failed = [], []
    while reruns:
        taken = take(reruns)
        runs.append([numbers[each] for each in taken.parts])
        if bad not in taken.parts:
            reruns.note_success(taken)
        elif not goes_on(reruns, taken, RAISED):
            failed += taken.parts
    assert runs == [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2], [3, 4], [3], [4]]
    assert failed == [bad]


def test_what_raised_comes_back_in_halves_in_the_order_of_its_rows() -> None:
    reruns, whole = reruns_of(4, isolate=True), batch(5)
    assert goes_on(reruns, whole, RAISED)
    assert [*reruns] == whole.parts
    halves = [take(reruns), take(reruns)]
    assert [half.parts for half in halves] == [whole.parts[:2], whole.parts[2:]]
    assert [(half.reason, half.bound_at) for half in halves] == [(ISOLATE, 7.0)] * 2
    assert reruns.next_batch(anyone, 7.0) is None


@pytest.mark.parametrize(
    ("isolate", "parts", "error"),
    [(False, 4, RAISED), (True, 1, RAISED), (True, 4, DeviceLost("gone"))],
    ids=["off", "alone", "lost"],
)
def test_what_nothing_can_be_found_out_about_is_not_run_again(
    isolate: bool, parts: int, error: Exception
) -> None:
    reruns = reruns_of(4, isolate=isolate, retry=True)
    assert not goes_on(reruns, batch(parts), error)
    assert not reruns


def test_halves_of_halves_share_one_budget() -> None:
    assert searched(reruns_of(4, isolate=True), batch(16)) == SIXTEEN


def test_of_a_model_that_is_broken_as_a_whole_only_halves_are_tried_until_something_runs() -> None:
    reruns = reruns_of(16, isolate=True)
    runs = [searched(reruns, batch(16)) for _ in range(6)]
    assert (runs[0], runs[-1]) == (SIXTEEN, 2)
    assert sorted(runs, reverse=True) == runs
    reruns.note_success(batch())
    assert searched(reruns, batch(16)) == SIXTEEN


def test_one_at_fault_that_comes_again_and_again_alone_does_not_pass_for_a_broken_model() -> None:
    reruns = reruns_of(64, isolate=True)
    for _ in range(100):
        assert not goes_on(reruns, batch(1), RAISED)
    assert searched(reruns, batch(16)) == SIXTEEN


def test_one_at_fault_in_each_batch_never_passes_for_a_broken_model() -> None:
    reruns = reruns_of(64, isolate=True)
    for _ in range(20):
        whole = batch(64)
        assert goes_on(reruns, whole, RAISED)
        failed = []
        while reruns:
            half = take(reruns)
            if whole.parts[-1] not in half.parts:
                reruns.note_success(half)
            elif not goes_on(reruns, half, RAISED):
                failed += half.parts
        assert failed == [whole.parts[-1]]


def exhausted() -> tuple[Reruns, list[Batch]]:
    """Return reruns whose only search has no runs left while two of its batches still run."""
    reruns = reruns_of(64, isolate=True)
    goes_on(reruns, batch(16), RAISED)
    for _ in range(SIXTEEN - 2):
        assert goes_on(reruns, take(reruns), RAISED)
    return reruns, [take(reruns), take(reruns)]


def test_what_is_left_waits_for_what_still_runs_and_fails_with_it() -> None:
    reruns, (first, second) = exhausted()
    assert reruns.next_batch(anyone, 7.0) is None
    assert reruns.note_failure(first, RAISED, uncut, 7.0) == []
    assert reruns.next_batch(anyone, 7.0) is None
    left = [*reruns]
    assert {*reruns.note_failure(second, RAISED, uncut, 7.0)} == {*left, *second.parts}
    assert not reruns


def test_the_search_goes_on_where_what_still_runs_ends_well() -> None:
    reruns, (first, second) = exhausted()
    goes_on(reruns, first, RAISED)
    reruns.note_success(second)
    left, failed = {*reruns}, set()
    while reruns:
        failed |= {*reruns.note_failure(take(reruns), RAISED, uncut, 7.0)}
    assert failed == left, "each alone"


def test_where_halves_are_not_run_a_good_half_for_want_of_memory_changes_nothing() -> None:
    reruns = reruns_of(4, isolate=False)
    goes_on(reruns, batch(4), OutOfMemory("none"))
    reruns.note_success(take(reruns))
    assert not goes_on(reruns, take(reruns), RAISED)


def test_the_oldest_search_comes_to_its_end_before_the_next() -> None:
    reruns, old, new = reruns_of(4, isolate=True), batch(4), batch(4)
    goes_on(reruns, old, RAISED)
    goes_on(reruns, new, RAISED)
    taken = []
    while reruns:
        taken.append(take(reruns))
        goes_on(reruns, taken[-1], RAISED)
    assert [{*half.parts} <= {*old.parts} for half in taken] == [True] * 5 + [False] * 5


def test_searches_come_first_when_they_are_more_than_fresh_batches_may_run_beside() -> None:
    reruns = reruns_of(4, isolate=True)
    for searches in range(1, SEARCHES_BESIDE_FRESH_BATCHES + 2):
        goes_on(reruns, batch(2), RAISED)
        assert reruns.come_first is (searches > SEARCHES_BESIDE_FRESH_BATCHES)
    half = take(reruns)
    reruns.note_success(half)
    assert reruns.come_first
    reruns.note_success(take(reruns))
    assert not reruns.come_first, "the oldest is over"


def test_a_new_batch_has_a_budget_of_its_own() -> None:
    reruns = reruns_of(4, isolate=True)
    for _ in range(3):
        goes_on(reruns, batch(16), RAISED)
        while reruns:
            goes_on(reruns, take(reruns), RAISED)
    assert goes_on(reruns, batch(2), RAISED)


def test_what_had_not_begun_runs_again_as_it_was_as_often_as_that_happens() -> None:
    reruns, whole = reruns_of(4, isolate=False), batch()
    lost = whole
    for _ in range(20):
        assert goes_on(reruns, lost, NOT_BEGUN)
        lost = take(reruns)
        assert (lost.parts, lost.reason) == (whole.parts, RETRY)


@pytest.mark.parametrize("retry", [False, True])
def test_what_had_begun_runs_again_only_where_that_is_allowed_and_once(retry: bool) -> None:
    reruns = reruns_of(4, isolate=True, retry=retry)
    assert goes_on(reruns, batch(), BEGUN) is retry
    if retry:
        again = take(reruns)
        assert goes_on(reruns, again, NOT_BEGUN), "it did not run this time"
        assert not goes_on(reruns, take(reruns), BEGUN)
    assert not reruns


def test_halves_of_what_was_run_twice_are_not_run_twice() -> None:
    reruns = reruns_of(4, isolate=True, retry=True)
    goes_on(reruns, batch(), BEGUN)
    goes_on(reruns, take(reruns), RAISED)
    assert not goes_on(reruns, take(reruns), BEGUN)
    assert len(reruns) == 1, "the other half still waits"


def test_a_half_that_was_lost_is_still_searched_within_the_budget_of_the_whole() -> None:
    reruns = reruns_of(16, isolate=True)
    goes_on(reruns, batch(16), RAISED)
    assert goes_on(reruns, take(reruns), NOT_BEGUN)
    assert rest_of_search(reruns) == 1 + SIXTEEN - 1, "it runs again for nothing"


def test_who_is_not_alive_any_more_is_left_out() -> None:
    reruns, whole = reruns_of(4, isolate=True), batch()
    goes_on(reruns, whole, RAISED)
    alive = whole.parts[3:]
    taken = reruns.next_batch(lambda part: part in alive, 7.0)
    assert taken is not None
    assert taken.parts == alive, "of the first half nobody is left"
    assert not reruns


def test_what_succeeded_is_forgotten() -> None:
    reruns = reruns_of(4, isolate=True)
    goes_on(reruns, batch(), RAISED)
    half = take(reruns)
    reruns.note_success(half)
    reruns.note_success(take(reruns))
    assert not reruns._running


@pytest.mark.parametrize("error", [NOT_BEGUN, OutOfMemory("none")], ids=["lost", "memory"])
def test_what_is_left_does_not_wait_for_what_was_to_decide_about_it_and_is_not_alive_any_more(
    error: Exception,
) -> None:
    reruns = reruns_of(64, isolate=True)
    goes_on(reruns, batch(16), RAISED)
    for _ in range(SIXTEEN - 1):
        assert goes_on(reruns, take(reruns), RAISED)
    last = take(reruns)
    assert goes_on(reruns, last, error)
    left = {*reruns} - {*last.parts}
    following = reruns.next_batch(lambda part: part not in last.parts, 7.0)
    assert following is not None
    assert {*reruns.note_failure(following, RAISED, uncut, 7.0)} == left
    assert not reruns

"""A batch that raised: only the requests at fault fail, within a bounded number of runs.

Others do not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import log2
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.python.failure import Failure

from batcher.batching.policies.delay import Delay
from batcher.batching.reruns import SEARCHES_BESIDE_FRESH_BATCHES
from batcher.core.spec import Array
from batcher.errors import DeadlineExceeded, DeviceLost, Draining, ModelError, QueueFull
from tests.support.models import double
from tests.support.scheduling import Harness

BUDGET = 2 * int(log2(64)) + 2


def picky(inputs: Mapping[str, Array]) -> dict[str, Any]:
    if (inputs["x"] < 0).any():
        raise ValueError("negative")
    return double(inputs)


def harness(**settings: Any) -> Harness:
    return Harness(predict=picky, isolate=True, **{"max_batch_size": 64, "timeout": 1e6} | settings)


def outcomes(answers: list[Any]) -> list[Any]:
    """Return the first value of each answer, or the type of its error."""
    return [
        type(answer.error) if isinstance(answer.fired[0], Failure) else answer.values[0]
        for answer in answers
    ]


@pytest.mark.parametrize("bad", [0, 31, 32, 63])
def test_one_poisoned_request_of_64_fails_alone_within_the_budget(bad: int) -> None:
    h = harness()
    answers = [h.submit(-1 if index == bad else index + 1) for index in range(64)]
    h.finish()
    assert outcomes(answers) == [
        ModelError if index == bad else 2 * (index + 1) for index in range(64)
    ]
    assert 1 + h.metrics.flushes["isolate"] == 1 + 2 * log2(64) <= BUDGET
    assert h.metrics.failed_batches == 1 + log2(64)


def test_where_a_half_has_run_everybody_at_fault_is_found_however_many() -> None:
    h = harness()
    answers = [h.submit(-1 if 32 <= index < 64 and index % 2 else index + 1) for index in range(64)]
    h.finish()
    assert outcomes(answers) == [
        ModelError if 32 <= index < 64 and index % 2 else 2 * (index + 1) for index in range(64)
    ]
    assert BUDGET < 1 + h.metrics.flushes["isolate"] <= 2 * 64 - 1


def test_where_nothing_runs_within_the_budget_the_rest_fails() -> None:
    h = harness()
    answers = [h.submit(-1 if index % 2 else index + 1) for index in range(64)]
    h.finish()
    assert outcomes(answers) == [ModelError] * 64
    assert 1 + h.metrics.flushes["isolate"] <= BUDGET


@pytest.mark.parametrize("places", [1, 2])
def test_where_the_last_run_of_the_budget_ends_well_everybody_is_found(places: int) -> None:
    h = harness(places=places)
    good = {4, 5, 15}  # of sixteen: the third eighth runs last, before the sixteenths
    answers = [h.submit(index + 1 if index in good else -1) for index in range(16)]
    h.finish()
    assert outcomes(answers) == [
        2 * (index + 1) if index in good else ModelError for index in range(16)
    ]
    assert h.counts == (0, 0, 0)


@pytest.mark.parametrize(("places", "instances"), [(1, 1), (2, 1), (2, 2)])
def test_what_waits_stays_bounded_where_every_batch_fails(places: int, instances: int) -> None:
    h = harness(places=places, instances=instances, max_rows=128)
    answers: list[Any] = []
    for _ in range(200):
        with suppress(QueueFull):
            while True:
                answers.append(h.submit(-1 if len(answers) % 64 == 7 else len(answers) + 1))
        h.turn()
        for worker in h.workers:
            worker.perform()
        assert h.scheduler.pending <= 128 + 64 * (
            SEARCHES_BESIDE_FRESH_BATCHES + 2 * places * instances
        )
    for worker in h.workers:
        while worker.batches:
            worker.perform()
            h.turn()


def test_a_wholly_broken_model_costs_no_more_than_the_budget() -> None:
    h = harness()
    answers = [h.submit(-1) for _ in range(64)]
    h.finish()
    assert outcomes(answers) == [ModelError] * 64
    assert len(h.model.batches) == 1 + h.metrics.flushes["isolate"] <= BUDGET
    assert h.counts == (0, 0, 0)


def test_fresh_batches_alternate_with_the_search() -> None:
    h = harness(max_batch_size=4)
    first = [h.submit(value) for value in (-1, 1, 2, 3)]
    h.turn()
    later = [h.submit(value) for value in range(10, 22)]
    h.finish()
    assert outcomes(first) == [ModelError, 2, 4, 6]
    assert outcomes(later) == [2 * value for value in range(10, 22)]
    assert h.metrics.flushes["isolate"] == 4
    sizes = h.model.sizes()
    assert 4 in sizes[2:4], f"a fresh batch does not wait for the whole search: {sizes}"


def test_the_search_goes_on_while_what_is_fresh_waits_for_more() -> None:
    h = Harness(Delay(4, 2.0), predict=picky, isolate=True)
    first = [h.submit(value) for value in (-1, 1, 2, 3)]
    h.turn()
    h.perform()
    later = h.submit(9)
    while h.worker.batches:
        h.perform()
    assert outcomes(first) == [ModelError, 2, 4, 6]
    assert later.waiting
    h.turn(2.0)
    h.finish()
    assert later.values == [18]


def test_a_request_of_several_rows_is_one_unit() -> None:
    h = harness()
    bad, good = h.submit(1, -1, 2), h.submit(3, 4)
    h.finish()
    assert isinstance(bad.error, ModelError)
    assert good.values == [6, 8]


def test_a_lone_request_that_raises_is_not_run_again() -> None:
    h = harness()
    bad = h.submit(-1)
    h.finish()
    assert isinstance(bad.error, ModelError)
    assert h.metrics.failed_batches == 1


def test_what_ends_while_it_waits_to_be_run_again_is_left_out() -> None:
    h = harness(places=1)
    answers = [h.submit(-1), h.submit(1), h.submit(2, deadline=5.0), h.submit(3)]
    h.turn()
    h.perform()  # it raises; the first half is sent, the second waits
    h.cancel(answers[3])
    h.turn(8.0)
    h.finish()
    assert outcomes(answers[:3]) == [ModelError, 2, DeadlineExceeded]
    assert h.counts == (0, 0, 0)
    assert 2 not in h.model.sizes()[2:], "nobody waits for the second half any more"


def test_the_end_of_the_server_ends_the_search() -> None:
    h = harness(places=1)
    answers = [h.submit(value) for value in (-1, 1, 2, 3)]
    h.turn()
    h.perform()
    h.scheduler.fail_all(Draining("stopped"))
    h.finish()
    assert outcomes(answers) == [Draining] * 4
    assert h.counts == (0, 0, 0)


def test_drain_waits_for_the_search() -> None:
    h = harness(places=1)
    answers = [h.submit(value) for value in (-1, 1, 2, 3)]
    h.turn()
    ended: list[None] = []
    h.scheduler.drain().addCallback(ended.append)
    h.perform()
    assert ended == []
    h.finish()
    assert ended == [None]
    assert outcomes(answers) == [ModelError, 2, 4, 6]


def test_an_error_that_leaves_the_device_broken_is_not_searched_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fatal(inputs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("batcher.models.device_errors._answers", lambda: False)
    h = Harness(predict=fatal, isolate=True)
    answers = [h.submit(1), h.submit(2)]
    h.finish()
    assert outcomes(answers) == [DeviceLost] * 2
    assert h.metrics.failed_batches == 1


@given(
    st.lists(st.booleans(), min_size=1, max_size=64),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 3, 8, 64]),
)
def test_nobody_innocent_fails_unless_nothing_runs_within_the_budget(
    bad: list[bool], places: int, largest: int
) -> None:
    h = harness(places=places, max_batch_size=largest)
    answers = [h.submit(-1 if wrong else index + 1) for index, wrong in enumerate(bad)]
    h.finish()
    for index, (wrong, outcome) in enumerate(zip(bad, outcomes(answers), strict=True)):
        assert outcome == ModelError if wrong else outcome in (2 * (index + 1), ModelError)
    if sum(bad) <= 2:  # of four quarters one runs
        assert outcomes(answers).count(ModelError) == sum(bad)
    assert h.counts == (0, 0, 0)

"""A batch that does not fit into the device's memory is made smaller until it does.

Nobody fails who fits alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.batching.ceiling import FULL_BATCHES_BEFORE_RAISE
from batcher.core.spec import Array
from batcher.errors import KnownToFail, ModelError, OutOfMemory
from tests.support.models import double
from tests.support.scheduling import Harness

Predict = Callable[[Mapping[str, Array]], dict[str, Any]]


def room_for(rows: int) -> Predict:
    """Return a model whose device has room for batches of `rows` rows."""

    def predict(inputs: Mapping[str, Array]) -> dict[str, Any]:
        if len(inputs["x"]) > rows:
            raise MemoryError(f"no room for {len(inputs['x'])} rows")
        return double(inputs)

    return predict


def test_what_does_not_fit_is_halved_and_everybody_is_answered() -> None:
    h = Harness(predict=room_for(2), max_batch_size=8)
    answers = [h.submit(value) for value in range(8)]
    h.finish()
    assert [answer.values for answer in answers] == [[2.0 * value] for value in range(8)]
    assert h.model.sizes() == [8, 4, 4, 2, 2, 2, 2]
    assert (h.metrics.out_of_memory, h.metrics.flushes["memory"], h.scheduler.ceiling_rows) == (
        3,
        6,
        2,
    )


def test_one_request_of_many_rows_is_cut_and_put_together_again() -> None:
    h = Harness(predict=room_for(2), max_batch_size=8)
    answer = h.submit(*range(7))
    h.finish()
    assert answer.values == [2.0 * value for value in range(7)]


def test_a_piece_of_a_cut_request_is_cut_again() -> None:
    h = Harness(predict=room_for(3), max_batch_size=8)
    answer = h.submit(*range(20))
    h.finish()
    assert answer.values == [2.0 * value for value in range(20)]


def test_what_was_learnt_holds_for_the_batches_after() -> None:
    h = Harness(predict=room_for(4), max_batch_size=8)
    h.submit(*range(8))
    h.finish()
    h.model.batches.clear()
    answers = [h.submit(value) for value in range(8)] + [h.submit(*range(6))]
    h.finish()
    assert all(answer.values for answer in answers)
    assert max(h.model.sizes()) == 4


def test_larger_batches_are_tried_again_also_where_no_number_of_requests_makes_the_largest() -> (
    None
):
    h = Harness(predict=room_for(8), max_batch_size=16)
    h.submit(*range(16))
    h.finish()
    assert h.scheduler.ceiling_rows == 8
    for _ in range(FULL_BATCHES_BEFORE_RAISE):
        for _ in range(3):
            h.submit(1, 2, 3)
        h.finish()
    assert max(h.model.sizes()[3:]) == 9, "though no batch had 8 rows"


def test_a_request_that_waited_and_has_become_too_large_is_made_smaller_not_forgotten() -> None:
    h = Harness(predict=room_for(2), max_batch_size=8, places=1)
    first, second = h.submit(*range(8)), h.submit(*range(8))
    h.finish()
    assert first.values == second.values == [2.0 * value for value in range(8)]


def test_a_row_that_does_not_fit_alone_fails_with_that_and_nobody_else() -> None:
    def predict(inputs: Mapping[str, Array]) -> dict[str, Any]:
        if (inputs["x"] < 0).any():
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return double(inputs)

    h = Harness(predict=predict, max_batch_size=4)
    answers = [h.submit(value) for value in (1, -1, 2, 3)]
    h.finish()
    assert isinstance(answers[1].error, OutOfMemory)
    assert [answer.values for answer in answers[:1] + answers[2:]] == [[2], [4], [6]]
    assert h.scheduler.ceiling_rows == 4, "nor are the batches of others smaller for it"


def test_it_is_made_smaller_even_where_nothing_is_isolated() -> None:
    h = Harness(predict=room_for(1), max_batch_size=4, isolate=False)
    answers = [h.submit(value) for value in range(4)]
    h.finish()
    assert all(answer.values for answer in answers)


def test_a_client_that_leaves_meanwhile_takes_its_rows_with_it() -> None:
    h = Harness(predict=room_for(2), max_batch_size=8)
    stays, leaves = h.submit(1), h.submit(*range(6))
    h.turn()
    h.perform()
    h.cancel(leaves)
    h.finish()
    assert stays.values == [2]
    assert sum(h.model.sizes()) == 8, "the seven rows that did not fit, and the one that was left"


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
    st.integers(1, 8),
    st.sampled_from([1, 2]),
)
def test_whoever_fits_alone_is_answered(sizes: list[int], memory: int, places: int) -> None:
    h = Harness(predict=room_for(memory), max_batch_size=8, places=places)
    answers = [(h.submit(*range(size)), size) for size in sizes]
    h.finish()
    for answer, size in answers:
        assert answer.values == [2.0 * value for value in range(size)]


def poisoned(inputs: Mapping[str, Array]) -> dict[str, Any]:
    if (inputs["x"] < 0).any():
        raise ValueError("a negative number")
    return double(inputs)


def test_what_keeps_failing_alone_is_refused_before_it_costs_anything() -> None:
    h = Harness(predict=poisoned, isolate=True, remembered=60.0)
    for _ in range(2):
        answers = [h.submit(1), h.submit(-1), h.submit(2)]
        h.finish()
        assert isinstance(answers[1].error, ModelError)
        assert (answers[0].values, answers[2].values) == ([2], [4])
    with pytest.raises(KnownToFail):
        h.submit(-1)
    assert h.metrics.rejected_rows["known_to_fail"] == 1
    assert h.submit(-2), "other inputs are not known"
    h.turn(61)
    h.finish()
    assert h.submit(-1), "it is tried again after a while"
    h.finish()


def test_nothing_is_remembered_by_default() -> None:
    h = Harness(predict=poisoned, isolate=True)
    for _ in range(4):
        answer = h.submit(-1)
        h.finish()
        assert isinstance(answer.error, ModelError)


def test_a_model_that_takes_few_rows_at_once_never_gets_more() -> None:
    h = Harness(max_batch_size=8)
    h.scheduler.loaded({}, max_rows=2)
    answers = [h.submit(1), h.submit(*range(7)), h.submit(3)]
    h.finish()
    assert max(h.model.sizes()) == 2
    assert answers[1].values == [2.0 * value for value in range(7)]


@pytest.mark.parametrize(("timings", "most"), [({1: 1, 2: 1, 4: 1}, 4), ({1: 1, 2: 1}, 3)])
def test_what_warm_up_has_learnt_of_the_memory_is_where_batches_begin(
    timings: dict[int, float], most: int
) -> None:
    h = Harness(max_batch_size=8)
    h.scheduler.loaded(timings, overflow_rows=6)
    assert h.scheduler.ceiling_rows == most
    answer = h.submit(*range(8))
    h.finish()
    assert max(h.model.sizes()) == most
    assert answer.values == [2.0 * value for value in range(8)]

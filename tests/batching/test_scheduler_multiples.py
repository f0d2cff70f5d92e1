"""Batches of a model that runs multiples of some rows: padded up, or sent with fewer rows."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from batcher.batching.cost import CostModel
from batcher.core.run_sizes import RunSizes
from tests.support.scheduling import Harness

MULTIPLES, SIZES = RunSizes(8), RunSizes(sizes=(1, 3, 8, 16))


def harness(of_eight: float, of_sixteen: float, sizes: RunSizes = MULTIPLES) -> Harness:
    """Return a scheduler whose batches of up to 8, and of up to 16 rows take so many seconds."""

    def cost(rows: int, group: Hashable) -> float:
        return of_eight if rows <= 8 else of_sixteen

    made = Harness(max_batch_size=16, cost=cost, soon=True)
    made.scheduler.loaded({}, run_sizes=sizes)
    return made


@pytest.mark.parametrize(
    ("of_sixteen", "handed"),
    [
        (9e-3, ["handed 8", "handed 1"]),
        (5.7e-3, ["handed 8", "handed 1"]),
        (5.5e-3, ["handed 9"]),
    ],
)
def test_rows_beyond_a_multiple_go_along_where_each_row_is_cheaper_for_that(
    of_sixteen: float, handed: list[str]
) -> None:
    h = harness(5e-3, of_sixteen)
    answers = [h.submit(number) for number in range(9)]
    h.finish()
    assert h.events == handed
    assert h.metrics.padded_rows == 7, "9 rows run as 16, and 1 as 8"
    assert [answer.values for answer in answers] == [[2.0 * number] for number in range(9)]


@pytest.mark.parametrize(
    ("deadline", "handed"), [(9.5e-3, ["handed 9"]), (10.5e-3, ["handed 8", "handed 1"])]
)
def test_rows_that_would_be_late_in_the_next_batch_go_along(
    deadline: float, handed: list[str]
) -> None:
    h = harness(5e-3, 9e-3)
    answers = [h.submit(number) for number in range(8)]
    answers.append(h.submit(8, deadline=deadline))
    h.finish()
    assert h.events == handed
    assert [answer.values for answer in answers] == [[2.0 * number] for number in range(9)]


@pytest.mark.parametrize(
    ("rows", "of_sixteen", "handed"),
    [
        (9, 9e-3, ["handed 8", "handed 1"]),
        (9, 5.5e-3, ["handed 9"]),
        (4, 9e-3, ["handed 3", "handed 1"]),
        (14, 9e-3, ["handed 8", "handed 3", "handed 3"]),
        (16, 9e-3, ["handed 16"]),
    ],
)
def test_batches_run_with_the_sizes_that_a_model_takes_or_with_fewer_rows(
    rows: int, of_sixteen: float, handed: list[str]
) -> None:
    seconds = {1: 1e-3, 3: 1.5e-3, 8: 5e-3, 16: of_sixteen}
    made = Harness(max_batch_size=16, cost=lambda rows, group: seconds[SIZES.runs_as(rows)])
    made.scheduler.loaded({}, run_sizes=SIZES)
    answers = [made.submit(number) for number in range(rows)]
    made.finish()
    assert made.events == handed
    assert [answer.values for answer in answers] == [[2.0 * number] for number in range(rows)]


def test_fewer_rows_than_one_multiple_go_at_once() -> None:
    h = harness(5e-3, 9e-3)
    for number in range(7):
        h.submit(number)
    h.finish()
    assert h.events == ["handed 7"]


def test_a_request_is_not_cut_for_a_multiple() -> None:
    h = harness(5e-3, 20e-3)
    for _ in range(4):
        h.submit(1, 2, 3)
    h.finish()
    assert h.events == ["handed 6", "handed 6"]
    h.events.clear()
    h.submit(*range(12))
    h.finish()
    assert h.events == ["handed 12"]


def test_the_time_of_a_batch_is_that_of_the_multiple_it_runs_as() -> None:
    model = CostModel()
    model.run_sizes = RunSizes(8)
    model.seed([(1, 5e-3), (9, 9e-3)])
    assert [model.seconds(rows) for rows in (1, 8, 9, 16)] == pytest.approx(
        [5e-3, 5e-3, 9e-3, 9e-3]
    )
    for _ in range(100):
        model.add(11, (), 20e-3)
    assert model.seconds(16) == pytest.approx(20e-3, rel=0.01)
    assert model.seconds(3) == pytest.approx(5e-3)

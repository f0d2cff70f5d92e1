"""Padded rows of a busy device, in simulated time: none of them starves."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from batcher.batching.ragged_cost import Plane
from batcher.batching.ragged_cuts import MAX_LATE, RaggedCuts
from batcher.core.spec import Array
from batcher.errors import BatcherError
from tests.support.models import model_spec, tensor
from tests.support.scheduling import Answer, Harness

SPEC = model_spec(
    inputs=(tensor("x", shape=(-1,), pad=0.0),), outputs=(tensor("y", shape=(-1,), unpads=True),)
)
LARGEST = 16
WAITING = 4 * LARGEST
LONGEST = 512
BATCHES = 100


class Flood:
    """A device that is kept busy: short rows come as fast as rows are sent."""

    def __init__(self, base: float) -> None:
        """A batch takes `base` seconds, and one for each element, padding included."""
        self._plane = Plane()
        self._plane.base, self._plane.per_element = base, 1.0
        self._harness = Harness(
            max_batch_size=LARGEST, cuts=RaggedCuts(self._plane), spec=SPEC, timeout=float("inf")
        )
        self._short = 0

    def come(self, width: int) -> Answer:
        """Let a row come."""
        return self._harness.submit(1.0, width=width)

    def run(self) -> int:
        """Run one batch, in the time that it takes, while short rows come; return its rows."""
        harness = self._harness
        while harness.scheduler.queue_rows < WAITING:
            self._short += 1
            self.come(3 + 7 * self._short % 23)
        harness.turn()
        batch, _ = harness.worker.batches[0]
        harness.turn(self._plane.seconds(batch.rows, batch.group.elements))
        harness.perform()
        return batch.rows


@pytest.mark.parametrize("base", [0.0, 2.0, 20.0, 2000.0])
@pytest.mark.parametrize("ahead", [0, 10, 30, 63])
def test_an_outlier_in_a_flood_of_short_rows_is_answered_three_batches_after_its_turn_at_most(
    base: float, ahead: int
) -> None:
    flood = Flood(base)
    for number in range(ahead):
        flood.come(3 + 7 * number % 23)
    outlier = flood.come(LONGEST)
    sent, turn = 0, None
    for number in range(BATCHES):
        sent += flood.run()
        if turn is None and sent > ahead:
            turn = number
        if not outlier.waiting:
            assert turn is None or number <= turn + MAX_LATE
            assert outlier.response.outputs["y"].shape == (1, LONGEST)
            return
    raise AssertionError("the outlier was not sent")


@pytest.mark.parametrize("base", [0.0, 2.0, 20.0, 2000.0])
def test_short_rows_are_not_left_behind_by_outliers_that_come_one_after_the_other(
    base: float,
) -> None:
    flood = Flood(base)
    first = [flood.come(4) for _ in range(WAITING)]
    sent = 0
    for number in range(BATCHES):
        assert sent <= WAITING + MAX_LATE * LARGEST
        flood.come(LONGEST - 16 * (number % 16))
        sent += flood.run()
        if not any(answer.waiting for answer in first):
            return
    raise AssertionError("the first rows were not sent")


def test_rows_beyond_the_largest_size_that_a_model_was_compiled_for_fail_no_others() -> None:
    """Sixteen such rows among sixteen others: more than the runs of one isolation could find."""
    spec = model_spec(
        inputs=(tensor("x", shape=(-1,), pad=0.0, pad_sizes=(4, 8)),),
        outputs=(tensor("y", shape=(-1,), unpads=True),),
    )

    def compiled(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].shape[1] not in (4, 8):
            raise ValueError("expected a length of 4 or 8")
        return {"y": 2 * inputs["x"]}

    cuts = RaggedCuts(Plane())
    harness = Harness(max_batch_size=32, cuts=cuts, spec=spec, predict=compiled, isolate=True)
    answers = [harness.submit(float(row), width=9 if row % 2 else 1 + row % 8) for row in range(32)]
    harness.turn()
    while any(answer.waiting for answer in answers):
        harness.perform()
        harness.turn()
    assert [answer.values for answer in answers[::2]] == [[2.0 * row] for row in range(0, 32, 2)]
    assert all(isinstance(answer.error, BatcherError) for answer in answers[1::2])

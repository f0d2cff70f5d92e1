"""The worker without a thread: it keeps the contract of the others, one step at a time."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.internet.task import Clock

from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.batching.worker import Outcome
from batcher.errors import ModelContractError
from batcher.models.protocol import LoadedModel
from batcher.workers.memory import MemoryWorker
from tests.support.models import Predict, RecordingModel, checked, double, rows


def batch_of(*values: float) -> Batch:
    """Return a batch with one part of one row for each of `values`."""
    return Batch([Part({"x": rows(value)}, 1, 16, (), 1, 0.0, 0.0) for value in values])


class Bench:
    """A memory worker and what it delivered."""

    def __init__(self, predict: Predict = double) -> None:
        self.clock = Clock()
        self.model = RecordingModel(predict=predict)
        self.worker = MemoryWorker(checked(self.model), self.clock)
        self.delivered: list[tuple[Batch, Outcome]] = []
        self.ready: list[object] = []
        self.changes: list[object] = []
        started = self.worker.start(
            lambda *delivery: self.delivered.append(delivery),
            lambda *change: self.changes.append(change),
        )
        started.addCallback(self.ready.append)


def test_it_is_ready_at_once() -> None:
    (loaded,) = Bench().ready
    assert loaded == LoadedModel()


def test_nothing_runs_before_it_is_told_to() -> None:
    bench = Bench()
    bench.worker.do(batch_of(1))
    assert bench.model.batches == []
    assert bench.delivered == []


def test_batches_run_one_at_a_time_in_the_order_they_came() -> None:
    bench = Bench()
    batches = [batch_of(1), batch_of(2, 3)]
    for batch in batches:
        bench.worker.do(batch)
    assert bench.worker.perform() is batches[0]
    assert [batch for batch, _ in bench.delivered] == batches[:1]
    assert bench.worker.perform() is batches[1]
    assert [batch for batch, _ in bench.delivered] == batches
    outcome = bench.delivered[1][1]
    assert outcome.error is None
    assert [result["y"][:, 0].tolist() for result in outcome.results] == [[4], [6]]


def test_waiting_and_computing_are_told_apart() -> None:
    bench = Bench(predict=lambda inputs: (bench.clock.advance(0.5), double(inputs))[1])
    bench.worker.do(batch_of(1))
    bench.clock.advance(0.25)
    bench.worker.perform()
    outcome = bench.delivered[0][1]
    assert (outcome.waited, outcome.compute) == (0.25, 0.5)


@pytest.mark.parametrize("error", [ValueError(), SystemExit()], ids=["an error", "an exit"])
def test_what_the_model_raises_is_delivered(error: BaseException) -> None:
    def fail(inputs: object) -> dict[str, np.ndarray]:
        raise error

    bench = Bench(predict=fail)
    bench.worker.do(batch_of(1))
    bench.worker.perform()
    outcome = bench.delivered[0][1]
    assert outcome.error is error
    assert outcome.results == []


def test_a_broken_contract_is_delivered_as_an_error() -> None:
    bench = Bench(predict=lambda inputs: {"y": inputs["x"][:1]})
    bench.worker.do(batch_of(1, 2))
    bench.worker.perform()
    outcome = bench.delivered[0][1]
    assert isinstance(outcome.error, ModelContractError)
    assert outcome.results == []


def test_parts_that_cannot_be_put_together_are_an_error_of_their_batch() -> None:
    bench = Bench()
    batch = Batch([Part({"x": rows(1, width=width)}, 1, 16, (), 1, 0.0, 0.0) for width in (3, 4)])
    bench.worker.do(batch)
    bench.worker.perform()
    assert isinstance(bench.delivered[0][1].error, ValueError)


def test_after_quit_it_refuses_and_still_runs_what_it_has() -> None:
    bench = Bench()
    bench.worker.do(batch_of(1))
    ended: list[None] = []
    bench.worker.quit().addCallback(ended.append)
    with pytest.raises(RuntimeError, match="no more batches"):
        bench.worker.do(batch_of(2))
    bench.worker.perform()
    assert len(bench.delivered) == 1
    assert bench.worker.quitting

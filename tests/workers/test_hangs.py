"""The inference thread when a batch hangs, or its device is lost.

What is told, what comes back, and what never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any

import pytest

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, Outcome
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from tests.support.crossing import PATIENCE
from tests.support.models import double
from tests.workers.test_memory import batch_of
from tests.workers.test_thread import LOAD_TIMEOUT, WATCHDOG, Bench, loading

HANGS, BACK = (
    "it hangs: a batch has run for more than 10 s",
    "it came back from the batch that it hung in",
)


class Gates:
    """A model that waits at each value that has a gate, and whose device is lost `lost_at` one."""

    def __init__(self, *values: float) -> None:
        self.entered = {value: Event() for value in values}
        self.leave = {value: Event() for value in values}
        self.lost_at: float | None = None

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        value = float(inputs["x"][0, 0])
        if value in self.entered:
            self.entered[value].set()
            assert self.leave[value].wait(PATIENCE)
        if value == self.lost_at:
            raise DeviceLost("CUDA error: gone")
        return double(inputs)

    def open(self) -> None:
        for gate in self.leave.values():
            gate.set()


@pytest.fixture
def gates() -> Iterator[Gates]:
    """Return a model that hangs at 1 and 2, and lets go of its thread after the test."""
    gates = Gates(1, 2)
    yield gates
    gates.open()


def hung(gates: Gates, *more: Batch) -> tuple[Bench, Batch]:
    """Return a bench whose worker hangs in a batch that was given up with `more`, and the batch."""
    bench, first = Bench(gates), batch_of(1)
    bench.ready()
    for batch in (first, *more):
        bench.worker.do(batch)
    assert gates.entered[1].wait(PATIENCE)
    bench.loop.clock.advance(WATCHDOG)
    return bench, first


def begun(outcome: Outcome) -> bool:
    """Return what the WorkerLost in `outcome` says."""
    assert isinstance(outcome.error, WorkerLost)
    return outcome.error.begun


def step_until_changes(bench: Bench, count: int) -> None:
    while len(bench.changes) < count:
        bench.loop.step()


def test_a_batch_that_hangs_is_given_up_and_those_behind_it_have_not_begun(gates: Gates) -> None:
    second = batch_of(3)
    bench, first = hung(gates, second)
    assert bench.changes == [(Condition.DEAD, HANGS)]
    assert [batch for batch, _ in bench.delivered] == [first, second]
    assert [begun(outcome) for _, outcome in bench.delivered] == [True, False]
    assert bench.delivered[0][1].compute == WATCHDOG
    assert "more than 10 s" in str(bench.delivered[0][1].error)


def test_it_is_told_before_anything_comes_back(gates: Gates) -> None:
    bench, events = Bench(gates), []
    loaded = bench.worker.start(
        lambda batch, _: events.append(batch), lambda condition, _: events.append(condition)
    )
    bench.loop.wait_for(loaded)
    batch = batch_of(1)
    bench.worker.do(batch)
    assert gates.entered[1].wait(PATIENCE)
    bench.loop.clock.advance(WATCHDOG)
    assert events == [Condition.DEAD, batch]


def test_a_worker_that_comes_back_lives_and_its_late_result_is_dropped(gates: Gates) -> None:
    bench, first = hung(gates, batch_of(3))
    gates.leave[1].set()
    step_until_changes(bench, 2)
    assert bench.changes[1] == (Condition.ALIVE, BACK)
    assert [batch for batch, _ in bench.delivered].count(first) == 1
    outcome = bench.run(5)
    assert outcome.results[0]["y"][0, 0] == 10
    bench.end()
    assert [float(batch["x"][0, 0]) for batch in bench.model.batches] == [1, 5], (
        "what was given back is not run here"
    )


def test_a_second_hang_is_noticed_like_the_first(gates: Gates) -> None:
    bench, _ = hung(gates)
    gates.leave[1].set()
    step_until_changes(bench, 2)
    bench.worker.do(batch_of(2))
    assert gates.entered[2].wait(PATIENCE)
    bench.loop.clock.advance(WATCHDOG)
    assert [condition for condition, _ in bench.changes] == [
        Condition.DEAD,
        Condition.ALIVE,
        Condition.DEAD,
    ]
    gates.leave[2].set()
    step_until_changes(bench, 4)
    assert bench.run(5).error is None
    bench.end()


def test_what_seems_to_hang_but_has_just_ended_has_not_hung(gates: Gates) -> None:
    bench = Bench(gates)
    bench.ready()
    bench.worker.do(batch_of(1))
    bench.worker.do(batch_of(2))
    gates.leave[1].set()
    assert gates.entered[2].wait(PATIENCE), "the first one has ended; the loop has not heard of it"
    bench.loop.clock.advance(WATCHDOG)
    assert bench.changes == []
    assert [outcome.error for _, outcome in bench.delivered] == [None]
    bench.loop.clock.advance(WATCHDOG - 1)
    assert bench.changes == [], "the second one has its own time"
    gates.leave[2].set()
    assert bench.next_outcome().error is None
    bench.end()


def test_a_batch_that_the_thread_took_at_the_last_moment_has_begun_and_is_waited_for_too(
    gates: Gates,
) -> None:
    bench = Bench(gates)
    bench.ready()
    late = batch_of(2)

    def changed(condition: Condition, reason: str) -> None:
        bench.changes.append((condition, reason))
        if (
            condition is Condition.DEAD
        ):  # right between giving up the first one and taking back the second
            gates.leave[1].set()
            assert gates.entered[2].wait(PATIENCE)

    bench.worker._changed = changed
    for batch in (batch_of(1), late):
        bench.worker.do(batch)
    assert gates.entered[1].wait(PATIENCE)
    bench.loop.clock.advance(WATCHDOG)
    assert [begun(outcome) for _, outcome in bench.delivered] == [True, True]
    bench.loop.step()
    assert len(bench.changes) == 1, "it is back from the first one, not from the second"
    gates.leave[2].set()
    step_until_changes(bench, 2)
    assert bench.run(5).results[0]["y"][0, 0] == 10
    assert len(bench.delivered) == 3
    bench.end()


def test_quitting_a_worker_that_hangs_waits_for_nothing_and_ends_if_it_comes_back(
    gates: Gates,
) -> None:
    bench, _ = hung(gates, batch_of(3))
    ended: list[None] = []
    bench.worker.quit().addCallback(ended.append)
    assert ended == []
    assert bench.loop.clock.getDelayedCalls() == [], "nothing holds up who does not wait for it"
    gates.leave[1].set()
    while not ended:
        bench.loop.step()
    assert len(bench.model.batches) == 1


def test_a_worker_that_was_told_to_quit_before_it_hung_still_ends(gates: Gates) -> None:
    bench = Bench(gates)
    bench.ready()
    bench.worker.do(batch_of(1))
    bench.worker.do(batch_of(3))
    assert gates.entered[1].wait(PATIENCE)
    ended = bench.worker.quit()
    bench.loop.clock.advance(WATCHDOG)
    assert [begun(outcome) for _, outcome in bench.delivered] == [True, False]
    gates.leave[1].set()
    assert bench.loop.wait_for(ended) is None
    assert len(bench.model.batches) == 1


def test_an_idle_worker_never_hangs(gates: Gates) -> None:
    bench = Bench(gates)
    bench.ready()
    bench.run(5)
    bench.loop.clock.advance(10 * WATCHDOG)
    assert bench.changes == []
    bench.end()


def test_when_the_device_is_lost_the_thread_ends_and_what_waits_has_not_begun(gates: Gates) -> None:
    gates.lost_at = 1.0
    bench = Bench(gates)
    bench.ready()
    for value in (1, 3):
        bench.worker.do(batch_of(value))
    gates.leave[1].set()
    step_until_changes(bench, 1)
    assert bench.changes == [(Condition.DEAD, "its device is lost: CUDA error: gone")]
    assert isinstance(bench.delivered[0][1].error, DeviceLost)
    assert not begun(bench.delivered[1][1])
    bench.worker._thread.join(PATIENCE)
    assert not bench.worker._thread.is_alive()
    bench.end()
    assert bench.loop.clock.getDelayedCalls() == []


def test_a_loss_that_cannot_be_written_is_a_loss_all_the_same() -> None:
    class Silent(DeviceLost):
        def __str__(self) -> str:
            raise SystemExit(3)

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise Silent

    bench = Bench(predict)
    bench.ready()
    bench.worker.do(batch_of(1))
    step_until_changes(bench, 1)
    bench.end()
    assert bench.changes == [(Condition.DEAD, "its device is lost: <exception str() failed>")]


def test_a_hang_that_ends_in_the_loss_of_the_device_brings_nothing_back(gates: Gates) -> None:
    gates.lost_at = 1.0
    bench, _ = hung(gates)
    gates.leave[1].set()
    bench.end()
    assert [condition for condition, _ in bench.changes] == [Condition.DEAD]
    assert len(bench.delivered) == 1


def test_a_load_that_takes_too_long_fails_and_what_comes_of_it_later_is_let_go_of() -> None:
    bench, loaded, leave = loading()
    bench.loop.clock.advance(LOAD_TIMEOUT)
    error = bench.loop.error_of(loaded)
    assert isinstance(error, ModelLoadError)
    assert str(error) == (
        "model 'm' version 1: expected the model to be loaded within 20 s (`load_timeout_s`); "
        "it is not"
    )
    ended = bench.worker.quit()
    assert not ended.called
    leave.set()
    bench.end()
    assert bench.changes == []


def test_a_load_that_ended_in_time_leaves_no_timer_behind() -> None:
    bench = Bench()
    bench.ready()
    assert bench.loop.clock.getDelayedCalls() == []
    bench.end()

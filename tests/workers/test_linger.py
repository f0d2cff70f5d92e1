"""Waiting for a short batch instead of being called back for it.

Each batch is delivered once, whoever comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

import pytest

from batcher.core.spec import Array
from batcher.workers import begin_wait, thread
from tests.support.crossing import PATIENCE
from tests.support.models import double
from tests.workers.test_memory import batch_of
from tests.workers.test_thread import Bench

MANY = (1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.fixture(autouse=True)
def every_model_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how fast this machine is."""
    monkeypatch.setattr(thread, "SHORT_BATCH_S", 1e9)
    monkeypatch.setattr(thread, "OUTCOME_WAIT_S", PATIENCE)


class Gate:
    """A model that runs when it is let."""

    def __init__(self) -> None:
        self.open = Event()
        self.running = Event()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.running.set()
        assert self.open.wait(PATIENCE)
        return double(inputs)


def test_a_batch_is_delivered_on_the_stack_of_whoever_waits_for_it() -> None:
    bench = Bench()
    bench.ready()
    bench.worker.do(batch_of(*MANY))
    bench.worker.linger()
    assert [outcome.error for _, outcome in bench.delivered] == [None]
    assert bench.heard_on == {bench.loop.thread}
    bench.end()
    assert len(bench.delivered) == 1


@pytest.mark.parametrize(
    ("short", "values"),
    [(1e9, MANY[: thread.ROWS_WITHOUT_WAIT]), (-1.0, MANY)],
    ids=["few rows", "a long model"],
)
def test_a_batch_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, short: float, values: tuple[float, ...]
) -> None:
    monkeypatch.setattr(thread, "SHORT_BATCH_S", short)
    gate = Gate()
    bench = Bench(gate)
    bench.ready()
    bench.worker.do(batch_of(*values))
    bench.worker.linger()
    assert bench.delivered == []
    gate.open.set()
    bench.next_outcome()
    bench.end()


def test_a_batch_that_takes_longer_than_usual_comes_by_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread, "OUTCOME_WAIT_S", 0.0)
    gate = Gate()
    bench = Bench(gate)
    bench.ready()
    bench.worker.do(batch_of(*MANY))
    assert gate.running.wait(PATIENCE)
    bench.worker.linger()
    assert bench.delivered == []
    gate.open.set()
    assert bench.next_outcome().error is None
    bench.end()
    assert len(bench.delivered) == 1


def test_what_comes_just_as_the_waiting_ends_is_not_left_behind() -> None:
    bench = Bench()
    bench.ready()
    arrived = Event()

    class TooLate(SimpleQueue[Any]):
        """Gives up when the thread, which sees the loop wait, has just put its outcome here."""

        waited = False

        def put(self, item: Any, *more: Any) -> None:
            super().put(item)
            arrived.set()

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if timeout is not None:
                assert arrived.wait(PATIENCE)
                raise Empty
            return super().get()

    bench.worker._outcomes = TooLate()
    bench.worker.do(batch_of(*MANY))
    bench.worker.linger()
    assert [outcome.error for _, outcome in bench.delivered] == [None]
    bench.end()
    assert len(bench.delivered) == 1


def test_a_second_batch_that_was_done_meanwhile_is_delivered_behind_the_first() -> None:
    bench = Bench()
    bench.ready()
    for start in range(200):
        batches = [batch_of(*(value + start for value in MANY)) for _ in range(2)]
        for batch in batches:
            bench.worker.do(batch)
        bench.worker.linger()
        while len(bench.delivered) < 2 * (start + 1):
            bench.loop.step()
        assert [batch for batch, _ in bench.delivered[-2:]] == batches
    bench.end()
    assert len(bench.delivered) == 400


def test_a_batch_that_failed_is_delivered_as_one() -> None:
    def raises(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise ValueError("no")

    bench = Bench(raises)
    bench.ready()
    bench.worker.do(batch_of(*MANY))
    bench.worker.linger()
    assert [str(outcome.error) for _, outcome in bench.delivered] == ["no"]
    bench.end()


def test_a_long_batch_has_begun_when_it_was_let_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "LONG_BATCH_S", -1.0)
    monkeypatch.setattr(begin_wait, "BEGIN_WAIT_S", PATIENCE)
    gate = Gate()
    bench = Bench(gate)
    bench.ready()
    bench.worker.do(batch_of(*MANY))
    bench.worker.let_begin()
    assert bench.worker._batches.empty()
    assert bench.delivered == []
    gate.open.set()
    assert bench.next_outcome().error is None
    bench.end()


def test_a_long_batch_behind_another_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread, "LONG_BATCH_S", -1.0)
    monkeypatch.setattr(begin_wait, "BEGIN_WAIT_S", 0.0)
    gate = Gate()
    bench = Bench(gate)
    bench.ready()
    bench.worker.do(batch_of(*MANY))
    assert gate.running.wait(PATIENCE)
    bench.worker.do(batch_of(*MANY))
    bench.worker.let_begin()
    assert not bench.worker._batches.empty()
    gate.open.set()
    while len(bench.delivered) < 2:
        bench.loop.step()
    bench.end()


def test_the_beginning_of_a_short_batch_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "LONG_BATCH_S", 1e9)
    monkeypatch.setattr(begin_wait, "BEGIN_WAIT_S", None)  # for ever
    bench = Bench()
    bench.ready()
    bench.worker.let_begin()
    bench.end()


def test_a_model_that_keeps_the_interpreter_lock_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thread, "LONG_BATCH_S", -1.0)
    bench = Bench()
    bench.ready()
    waits: list[float] = []
    seconds = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]  # of the waits
    now = iter([time for each in seconds for time in (0.0, each)])
    monkeypatch.setattr(begin_wait, "perf_counter", lambda: next(now))
    monkeypatch.setattr(bench.worker._begin_wait._begun, "wait", waits.append)
    for _ in range(6):
        bench.worker.let_begin()
    assert len(waits) == 6, "two long waits may be chance"
    for _ in range(begin_wait.BATCHES_WITHOUT_WAIT):
        bench.worker.let_begin()
    assert len(waits) == 6, "three times in a row a second went by before the lock came back"
    bench.worker.let_begin()
    assert len(waits) == 7
    monkeypatch.undo()
    bench.end()

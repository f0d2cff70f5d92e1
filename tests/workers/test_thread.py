"""The inference thread, with real threads: where things run, how it ends, what cannot kill it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from queue import Queue
from threading import Event, current_thread, get_ident
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, Outcome
from batcher.core.frames import clear_all_frames
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.load_pause import others_may_load
from batcher.models.protocol import LoadedModel, Progress
from batcher.workers import thread
from batcher.workers.load_turns import LoadTurns
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.own_processes import OwnProcesses
from batcher.workers.thread import InferenceThread
from tests.support.crossing import PATIENCE, Loop, no_more_threads
from tests.support.models import Predict, RecordingModel, checked, double
from tests.workers.test_memory import batch_of

WATCHDOG = 10.0
LOAD_TIMEOUT = 20.0
"""Seconds, of the loop's clock."""


class Bench:
    """An inference thread, the loop's side of it, and what it delivered there.

    Attributes:
        progress: what was reported while it loaded, and on which thread that was heard.
        delivered: each batch with its outcome.
        heard_on: threads on which batches were delivered.
        changes: of its condition.
    """

    def __init__(
        self,
        predict: Predict = double,
        load: Callable[[Progress], CheckedModel] | None = None,
        turns: LoadTurns | None = None,
    ) -> None:
        self.loop = Loop()
        self.model = RecordingModel(predict=predict)
        self.progress: list[tuple[str, int]] = []
        self.delivered: list[tuple[Batch, Outcome]] = []
        self.heard_on: set[int] = set()
        self.changes: list[tuple[Condition, str]] = []
        self.worker = InferenceThread(
            load or (lambda progress: checked(self.model)),
            LoopSide(
                lambda text: self.progress.append((text, get_ident())),
                self.loop.call_from_thread,
                self.loop.clock,
                turns or LoadTurns(1),
            ),
            WorkerOptions("batcher-test", "model 'm' version 1", WATCHDOG, LOAD_TIMEOUT),
            OwnProcesses(self),
        )

    def start(self) -> Deferred[LoadedModel]:
        return self.worker.start(self._deliver, lambda *change: self.changes.append(change))

    def ready(self) -> None:
        """Start, and wait until the model is loaded."""
        loaded = self.loop.wait_for(self.start())
        assert isinstance(loaded, LoadedModel), loaded

    def run(self, *values: float) -> Outcome:
        """Run one batch and return its outcome."""
        self.worker.do(batch_of(*values))
        return self.next_outcome()

    def next_outcome(self) -> Outcome:
        """Wait for the next batch to come back."""
        count = len(self.delivered)
        while len(self.delivered) == count:
            self.loop.step()
        return self.delivered[-1][1]

    def end(self) -> None:
        """Quit, and wait until the thread has said that it ends."""
        assert self.loop.wait_for(self.worker.quit()) is None
        self.worker._thread.join(PATIENCE)
        assert not self.worker._thread.is_alive()

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:
        self.heard_on.add(get_ident())
        self.delivered.append((batch, outcome))


def loading() -> tuple[Bench, Deferred[LoadedModel], Event]:
    """Return a bench whose model is being loaded, until the event is set, and what fires then."""
    entered, leave = Event(), Event()

    def load(progress: Progress) -> CheckedModel:
        entered.set()
        assert leave.wait(PATIENCE)
        return checked(bench.model)

    bench = Bench(load=load)
    loaded = bench.start()
    assert entered.wait(PATIENCE)
    return bench, loaded, leave


def test_loading_and_predicting_happen_on_one_thread_that_is_not_the_loop_s() -> None:
    threads: list[int] = []

    def load(progress: Progress) -> CheckedModel:
        threads.append(get_ident())
        progress("loading")
        return checked(bench.model)

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        threads.append(get_ident())
        return double(inputs)

    bench = Bench(predict, load)
    bench.ready()
    bench.run(1)
    bench.run(2)
    bench.end()
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threads[0] != bench.loop.thread
    assert bench.heard_on == {bench.loop.thread}
    assert bench.progress == [("loading", bench.loop.thread)]


def test_what_comes_back_while_answers_are_written_waits_for_the_loop_s_next_turn() -> None:
    bench = Bench()
    bench.ready()
    turns = 0

    def deliver(batch: Batch, outcome: Outcome) -> None:
        bench._deliver(batch, outcome)
        if len(bench.delivered) < 5:
            bench.worker.do(batch_of(len(bench.delivered)))
            bench.worker._outcomes.put(
                bench.worker._outcomes.get(timeout=PATIENCE)
            )  # the thread has done it

    bench.worker._deliver = deliver
    bench.worker.do(batch_of(0))
    while len(bench.delivered) < 5:
        count = len(bench.delivered)
        bench.loop.step()
        turns += 1
        assert len(bench.delivered) <= count + 1
    bench.end()


def test_no_thread_runs_before_start() -> None:
    bench = Bench()
    assert not bench.worker._thread.is_alive()


def test_the_thread_has_its_name_and_does_not_hold_up_the_end_of_the_process() -> None:
    seen = []
    bench = Bench(lambda inputs: (seen.append(current_thread()), double(inputs))[1])
    bench.ready()
    bench.run(1)
    bench.end()
    assert seen[0].name == "batcher-test"
    assert seen[0].daemon


def test_batches_come_back_in_order_each_with_its_rows() -> None:
    bench = Bench()
    bench.ready()
    batches = [batch_of(number, 10 + number) for number in range(20)]
    for batch in batches:
        bench.worker.do(batch)
    while len(bench.delivered) < len(batches):
        bench.loop.step()
    bench.end()
    assert [batch for batch, _ in bench.delivered] == batches
    for number, (_, outcome) in enumerate(bench.delivered):
        assert [result["y"][:, 0].tolist() for result in outcome.results] == [
            [2 * number],
            [20 + 2 * number],
        ]
        assert outcome.waited >= 0
        assert outcome.compute > 0


def test_quit_finishes_what_is_there_and_refuses_afterwards() -> None:
    entered, leave = Event(), Event()

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        entered.set()
        assert leave.wait(PATIENCE)
        return double(inputs)

    bench = Bench(predict)
    bench.ready()
    bench.worker.do(batch_of(1))
    bench.worker.do(batch_of(2))
    assert entered.wait(PATIENCE)
    ended = bench.worker.quit()
    with pytest.raises(RuntimeError, match="no more batches"):
        bench.worker.do(batch_of(3))
    leave.set()
    assert bench.loop.wait_for(ended) is None
    assert [outcome.results[0]["y"][0, 0] for _, outcome in bench.delivered] == [2, 4]


def test_a_program_waits_for_the_thread_from_the_order_to_quit_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited_for: list[threading.Thread] = []
    monkeypatch.setattr("batcher.workers.thread.wait_at_exit", waited_for.append)
    bench = Bench()
    bench.ready()
    ended = bench.worker.quit()
    assert waited_for == [bench.worker._thread], "the loop may end before it hears of the end"
    assert bench.loop.wait_for(ended) is None


def test_quitting_twice_ends_once() -> None:
    bench = Bench()
    bench.ready()
    first, second = bench.worker.quit(), bench.worker.quit()
    assert bench.loop.wait_for(first) is None
    assert bench.loop.wait_for(second) is None


def test_a_worker_that_never_started_ends_at_once() -> None:
    ended: list[None] = []
    Bench().worker.quit().addCallback(ended.append)
    assert ended == [None]


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), SystemExit(3), KeyboardInterrupt()],
    ids=["error", "exit", "interrupt"],
)
def test_a_model_that_raises_does_not_kill_the_thread(error: BaseException) -> None:
    errors = [error]

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if errors:
            raise errors.pop()
        return double(inputs)

    bench = Bench(predict)
    bench.ready()
    assert bench.run(1).error is error
    outcome = bench.run(2)
    bench.end()
    assert outcome.error is None
    assert outcome.results[0]["y"][0, 0] == 4


@pytest.mark.parametrize(
    "error",
    [ModelLoadError("no such file"), ValueError("odd"), SystemExit(3)],
    ids=["load error", "error", "exit"],
)
def test_a_failed_load_surfaces_and_the_thread_ends(error: BaseException) -> None:
    def load(progress: Progress) -> CheckedModel:
        raise error

    bench = Bench(load=load)
    assert bench.loop.error_of(bench.start()) is error
    bench.end()


def test_what_a_failed_load_has_made_goes_though_somebody_keeps_the_reason() -> None:
    made = []

    def load(progress: Progress) -> CheckedModel:
        model = RecordingModel()
        made.append(weakref.ref(model))
        raise ValueError("odd")

    bench = Bench(load=load)
    reason = bench.loop.error_of(bench.start())
    bench.end()
    assert [each() for each in made] == [None]
    assert reason.__traceback__ is not None


def test_quitting_while_the_model_loads_ends_after_the_load() -> None:
    bench, loaded, leave = loading()
    ended = bench.worker.quit()
    leave.set()
    assert not isinstance(bench.loop.wait_for(loaded), Failure)
    assert bench.loop.wait_for(ended) is None


class Announcing(Queue[Any]):
    """A queue that says when a thread has come to wait at it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_at = Event()

    def get(self, *arguments: Any, **more: Any) -> Any:
        self.waited_at.set()
        return super().get(*arguments, **more)


def test_an_idle_thread_keeps_nothing_of_the_last_batch() -> None:
    bench = Bench()
    batches = bench.worker._batches = Announcing()
    bench.ready()
    assert batches.waited_at.wait(PATIENCE)
    batches.waited_at.clear()
    batch = batch_of(1)
    body = weakref.ref(batch.parts[0].inputs["x"])
    bench.worker.do(batch)
    del batch
    bench.next_outcome()
    assert batches.waited_at.wait(PATIENCE)
    bench.delivered.clear()
    assert body() is None
    bench.end()


def test_a_model_that_ends_is_gone_when_the_memory_that_pytorch_keeps_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[bool] = []
    model = checked(RecordingModel())
    seen = weakref.ref(model)
    loads = [model]
    del model
    monkeypatch.setattr(thread, "empty_cache", lambda: alive.append(seen() is not None))
    bench = Bench(load=lambda progress: loads.pop())
    bench.loop.wait_for(bench.start())
    assert alive == []
    bench.end()
    assert alive == [False]


def test_so_is_the_memory_of_a_load_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[bool] = []
    seen: list[weakref.ref[CheckedModel]] = []

    def load(progress: Progress) -> CheckedModel:
        model = checked(RecordingModel())
        seen.append(weakref.ref(model))
        raise ModelLoadError("one row does not fit")

    monkeypatch.setattr(thread, "empty_cache", lambda: alive.append(seen[0]() is not None))
    bench = Bench(load=load)
    assert str(bench.loop.error_of(bench.start())) == "one row does not fit"
    bench.end()
    assert alive == [False]


@pytest.mark.parametrize("stage", ["load", "batch"])
def test_after_a_lost_device_nothing_that_lay_there_is_freed(stage: str) -> None:
    seen: list[weakref.ref[Any]] = []

    def lose(held: Any) -> Any:
        seen.append(weakref.ref(held))
        raise DeviceLost("CUDA error: gone")

    def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
        copy = inputs["x"].copy()
        return {"y": lose(copy)}

    def load(progress: Progress) -> CheckedModel:
        model = checked(RecordingModel(predict=predict))
        seen.append(weakref.ref(model))
        return model if stage == "batch" else lose(model.model)

    bench = Bench(load=load)
    started = bench.start()
    if stage == "load":
        clear_all_frames(bench.loop.error_of(started))
    else:
        bench.loop.wait_for(started)
        error = bench.run(1).error
        assert error is not None
        clear_all_frames(error)
        bench.delivered.clear()
        del error
    bench.end()
    assert [each() is not None for each in seen] == [True, True]


def test_where_there_are_no_more_threads_the_load_fails_and_the_worker_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "_start_new_thread", no_more_threads)
    bench = Bench()
    assert str(bench.loop.error_of(bench.start())) == "model 'm' version 1: can't start new thread"
    assert bench.loop.wait_for(bench.worker.quit()) is None
    assert bench.loop.clock.getDelayedCalls() == []


def test_a_load_that_waits_for_another_process_lets_the_next_one_load() -> None:
    turns, compiled = LoadTurns(1), Event()

    def load(progress: Progress) -> CheckedModel:
        with others_may_load():
            assert compiled.wait(PATIENCE)
        return checked(first.model)

    first, second = Bench(load=load, turns=turns), Bench(turns=turns)
    first_loads, second_loads = first.start(), second.start()
    first.loop.step()  # which hears of the pause
    assert isinstance(second.loop.wait_for(second_loads), LoadedModel)
    compiled.set()
    assert isinstance(first.loop.wait_for(first_loads), LoadedModel)

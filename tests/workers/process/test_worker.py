"""Supervision of a child, step by step: a child that only notes what it is told, and a clock."""

from __future__ import annotations

import gc
import weakref

import pytest
from twisted.internet.task import Clock

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, Outcome
from batcher.config.model_settings import ModelSettings
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from batcher.models.protocol import LoadedModel
from batcher.workers.load_turns import LoadTurns
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.process.child_protocol import Child, Parent
from batcher.workers.process.restarts import FAILURES_UNTIL_DEAD, SOUND_AFTER_S
from batcher.workers.process.worker import EXIT_TIMEOUT_S, ProcessWorker
from tests.workers.test_memory import batch_of

KILLED = "the child was killed by signal 9 (SIGKILL)"
TITLE = "model 'm' version 1"
LATE = "expected the model to be loaded within 60 s (`load_timeout_s`); it is not"


class FakeChild:
    """Notes what it is told in the events of its bench; what becomes of it is said by the test."""

    def __init__(self, name: str, events: list[str], parent: Parent) -> None:
        self.batches: list[Batch] = []
        self._name = name
        self._events = events
        self._parent = parent

    def start(self) -> None:
        self._events.append(f"{self._name} starts")

    def load(self) -> None:
        self._events.append(f"{self._name} loads")

    def run(self, batch: Batch) -> None:
        self.batches.append(batch)

    def let_begin(self, seconds: float) -> None:
        self._events.append(f"{self._name} begins")

    def quit(self) -> None:
        self._events.append(f"{self._name} quits")

    def kill(self) -> None:
        self._events.append(f"{self._name} killed")

    def ready(self) -> None:
        """Say that the model is loaded."""
        self._parent.loaded(LoadedModel(one_call=True))

    def deliver(self, error: BaseException | None = None, compute: float = 0.0) -> None:
        """Say that the oldest batch is done."""
        self._parent.delivered(self.batches.pop(0), Outcome([], error, 0.0, compute))

    def refuse(self, reason: str) -> None:
        """Say that the model cannot be loaded, and end."""
        self.fail(reason)
        self.end("the child exited with status 0")

    def fail(self, reason: str) -> None:
        """Say that the model cannot be loaded."""
        self._parent.load_failed(reason, "load")

    def end(self, how: str = KILLED, begun: int = 0) -> None:
        """Say that it has ended."""
        self._parent.ended(self, how, begun)


class Bench:
    """A worker, its children and everything that happens, in order.

    Attributes:
        events: what happened, in words.
        children: every child, in the order they were made: the first, its spare, the spare's…
    """

    def __init__(
        self, turns: LoadTurns | None = None, keeps_spare: bool = True, **settings: object
    ) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.children: list[FakeChild] = []
        self.errors: list[BaseException | None] = []
        checked = ModelSettings.model_validate(settings)
        self.worker = ProcessWorker(
            LoopSide(
                lambda text: self.events.append(text),
                lambda function, *arguments: function(*arguments),
                self.clock,
                turns or LoadTurns(1),
            ),
            WorkerOptions("test", TITLE, checked.watchdog_s, checked.load_timeout_s, keeps_spare),
            self._make_child,
            jitter=lambda delay: delay,
        )
        self.failures: list[BaseException] = []
        loaded = self.worker.start(
            self._deliver, lambda condition, why: self.events.append(f"{condition.value}: {why}")
        )
        loaded.addCallbacks(
            lambda loaded: self.events.append("loaded"),
            lambda failure: self.failures.append(failure.value),
        )

    def ready(self) -> None:
        """Have the first child load, and forget how it did."""
        self.children[0].ready()
        self.events.clear()

    def do(self, *values: float) -> Batch:
        """Hand over a batch."""
        batch = batch_of(*values)
        self.worker.do(batch)
        return batch

    def happened(self) -> list[str]:
        """Return what happened since the last call."""
        events, self.events[:] = list(self.events), []
        return events

    def _make_child(self, parent: Parent) -> Child:
        self.children.append(FakeChild(f"child {len(self.children)}", self.events, parent))
        return self.children[-1]

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:
        error = outcome.error
        self.errors.append(error)
        began = (
            f" {'begun' if error.begun else 'not begun'}" if isinstance(error, WorkerLost) else ""
        )
        self.events.append(f"batch {batch.rows}: {type(error).__name__}{began}")


def test_the_model_is_loaded_and_then_a_spare_is_started_that_does_not_load_it() -> None:
    bench = Bench()
    assert bench.happened() == ["child 0 starts", "child 0 loads"]
    bench.children[0].ready()
    assert bench.happened() == ["child 1 starts", "loaded"]


def test_what_the_child_does_while_it_loads_is_passed_on() -> None:
    bench = Bench()
    bench.happened()
    bench.worker.reported("warming up")
    assert bench.happened() == ["warming up"]


def test_a_load_that_waits_for_another_process_lets_the_next_one_begin() -> None:
    turns = LoadTurns(1)
    first, second = Bench(turns), Bench(turns)
    assert "child 0 loads" not in second.happened()
    first.worker.load_paused()
    assert second.happened() == ["child 0 loads"]
    second.children[0].ready()
    first.children[0].ready()
    assert "loaded" in first.happened()


def test_spares_start_when_no_model_loads_any_more() -> None:
    turns = LoadTurns(1)
    first, second = Bench(turns), Bench(turns)
    first.children[0].ready()
    assert len(first.children) == 1
    second.children[0].ready()
    assert len(first.children) == len(second.children) == 2


def test_a_worker_that_has_ended_holds_on_to_nobody_who_holds_on_to_it() -> None:
    bench = Bench()
    bench.ready()
    left = weakref.ref(bench.worker), weakref.ref(bench)
    bench.worker.quit()
    for child in bench.children:
        child.end()
    gc.freeze()  # circles are not looked for
    del child, bench
    assert [each() for each in left] == [None, None]


def test_a_worker_that_quits_while_others_load_gets_no_spare() -> None:
    turns = LoadTurns(1)
    first, second = Bench(turns), Bench(turns)
    first.children[0].ready()
    first.worker.quit()
    second.children[0].ready()
    assert len(first.children) == 1


def test_batches_go_to_the_child_and_come_back() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.do(1, 2)
    bench.children[0].deliver()
    bench.children[0].deliver(ValueError("bad"))
    assert bench.happened() == ["batch 1: NoneType", "batch 2: ValueError"]


def test_a_worker_that_has_not_loaded_takes_no_batches() -> None:
    with pytest.raises(RuntimeError, match="takes no batches"):
        Bench().do(1)


def test_when_the_child_ends_it_is_told_then_what_it_held_comes_back_then_the_spare_loads() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.do(1, 2)
    bench.do(1, 2, 3)
    bench.children[0].end(begun=2)
    assert bench.happened() == [
        f"restarting: {KILLED}",
        "batch 1: WorkerLost begun",
        "batch 2: WorkerLost begun",
        "batch 3: WorkerLost not begun",
    ]
    assert str(bench.errors[0]) == f"the worker was lost: {KILLED}"
    with pytest.raises(RuntimeError, match="takes no batches"):
        bench.do(1)
    bench.clock.advance(0)
    assert bench.happened() == ["child 1 loads"]
    bench.children[1].ready()
    assert bench.happened() == ["child 2 starts", "alive: "]
    bench.clock.advance(1000)
    assert bench.happened() == []  # what the first child held is watched no more
    bench.do(1)
    assert bench.children[1].batches


def test_a_batch_that_runs_too_long_has_the_child_killed() -> None:
    bench = Bench(watchdog_s=60)
    bench.ready()
    bench.do(1)
    bench.do(1, 2)
    bench.clock.advance(59)
    bench.children[0].deliver()
    bench.clock.advance(59)
    assert bench.happened() == ["batch 1: NoneType"]
    bench.clock.advance(1)
    assert bench.happened() == ["child 0 killed"]
    bench.children[0].end(begun=1)
    told = "a batch has run for more than 60 s"
    assert bench.happened() == [f"restarting: {told}", "batch 2: WorkerLost begun"]
    assert str(bench.errors[-1]) == f"the worker was lost: {told}"


def test_nothing_is_watched_while_nothing_runs() -> None:
    bench = Bench(watchdog_s=60)
    bench.ready()
    bench.do(1)
    bench.children[0].deliver()
    bench.happened()
    bench.clock.advance(1000)
    assert bench.happened() == []


def test_a_lost_device_has_the_child_replaced_and_only_its_own_batch_fails_for_it() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.do(1, 2)
    bench.children[0].deliver(DeviceLost("illegal access"))
    assert bench.happened() == [
        "restarting: its device is lost: illegal access",
        "child 0 killed",
        "batch 1: DeviceLost",
        "batch 2: WorkerLost not begun",
    ]
    bench.children[0].deliver(compute=1)  # too late, whatever it is
    bench.children[0].end(begun=1)
    bench.clock.advance(0)
    assert bench.happened() == ["child 1 loads"]


def test_tries_follow_each_other_more_slowly_and_the_third_life_in_vain_is_told_as_dead() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.children[0].deliver()
    bench.children[0].end()
    bench.clock.advance(0)
    bench.happened()
    waited = []
    for number, delay in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8)):
        bench.children[number].refuse("model 'm' version 1: no such file")
        waited.append(bench.happened())
        bench.clock.advance(delay * 0.99)
        assert bench.happened() == []
        bench.clock.advance(delay * 0.02)
        assert bench.happened() == [f"child {number + 1} starts", f"child {number + 1} loads"]
    why = "model 'm' version 1: no such file"
    assert waited == [
        [f"restarting: {why}"],
        [f"restarting: {why}"],
        [f"dead: {why}"],
        [f"dead: {why}"],
    ]
    bench.children[5].ready()
    assert bench.happened() == ["child 6 starts", "alive: "]


def test_a_batch_that_was_delivered_lets_the_next_try_be_at_once() -> None:
    bench = Bench()
    bench.ready()
    for number in range(5):
        bench.do(1)
        bench.children[number].deliver(ValueError("bad"))
        bench.children[number].end()
        assert bench.happened() == ["batch 1: ValueError", f"restarting: {KILLED}"]
        bench.clock.advance(0)
        bench.children[number + 1].ready()
        assert bench.happened() == [
            f"child {number + 1} loads",
            f"child {number + 2} starts",
            "alive: ",
        ]


def test_a_long_life_lets_the_next_try_be_at_once() -> None:
    bench = Bench()
    bench.ready()
    for number in range(5):
        bench.clock.advance(SOUND_AFTER_S)
        bench.children[number].end()
        bench.clock.advance(0)
        bench.children[number + 1].ready()
        assert bench.happened()[-1] == "alive: "


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "killed"])
def test_a_first_start_that_fails_is_the_load_error_and_nothing_is_tried_again(
    refused: bool,
) -> None:
    bench = Bench()
    bench.happened()
    if refused:
        bench.children[0].refuse("model 'm' version 1: no such file")
    else:
        bench.children[0].end()
    (error,) = bench.failures
    assert isinstance(error, ModelLoadError)
    why = "no such file" if refused else f"{KILLED}, while it loaded"
    assert str(error) == f"model 'm' version 1: {why}"
    bench.clock.advance(1000)
    assert bench.happened() == []
    assert bench.worker.quit().called
    assert len(bench.children) == 1


def test_a_spare_that_ends_is_replaced_and_done_without_until_then() -> None:
    bench = Bench()
    bench.ready()
    bench.children[1].end()
    bench.do(1)
    bench.children[0].deliver()
    bench.children[0].end()
    assert bench.happened() == ["batch 1: NoneType", f"restarting: {KILLED}"]
    bench.clock.advance(0)
    assert bench.happened() == ["child 2 starts", "child 2 loads"]
    bench.children[2].ready()
    assert bench.happened() == ["child 3 starts", "alive: "]
    bench.children[3].end()
    bench.clock.advance(0.1)
    assert bench.happened() == ["child 4 starts"]
    bench.children[2].end()
    bench.clock.advance(0.1)
    assert bench.happened() == [f"restarting: {KILLED}", "child 4 loads"]


def test_spares_that_end_one_after_the_other_are_replaced_more_and_more_slowly() -> None:
    bench = Bench()
    bench.ready()
    for number, delay in ((1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4)):
        bench.children[number].end()
        bench.clock.advance(delay * 0.99)
        assert bench.happened() == ([] if delay else [f"child {number + 1} starts"])
        bench.clock.advance(delay * 0.02)
        assert bench.happened() == ([f"child {number + 1} starts"] if delay else [])
    bench.clock.advance(SOUND_AFTER_S)
    bench.children[5].end()
    bench.clock.advance(0)
    assert bench.happened() == ["child 6 starts"]
    bench.children[6].end()
    bench.worker.quit()
    assert bench.happened() == ["child 0 quits"]
    bench.children[0].end("the child exited with status 0")
    bench.clock.advance(1000)
    assert len(bench.children) == 7
    assert not bench.clock.getDelayedCalls()


def test_quitting_finishes_what_there_is_and_fires_when_child_and_spare_have_ended() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    ended = bench.worker.quit()
    assert bench.worker.quit() is ended
    assert bench.happened() == ["child 1 killed", "child 0 quits"]
    with pytest.raises(RuntimeError, match="takes no batches"):
        bench.do(1)
    bench.clock.advance(2 * EXIT_TIMEOUT_S)
    bench.children[0].deliver()
    bench.children[0].end("the child exited with status 0")
    assert bench.happened() == ["batch 1: NoneType"]
    assert not ended.called
    bench.children[1].end()
    assert ended.called
    assert not bench.clock.getDelayedCalls()


def test_a_child_that_does_not_end_soon_after_a_load_that_failed_is_killed() -> None:
    bench = Bench()
    bench.children[0].ready()
    bench.children[0].end()
    for child in bench.children[1:3]:
        bench.clock.advance(1)
        bench.happened()
        child.fail("no such file")
        bench.clock.advance(0.99 * EXIT_TIMEOUT_S)
        assert bench.happened() == []
        bench.clock.advance(0.02 * EXIT_TIMEOUT_S)
        assert bench.happened() == [f"{child._name} killed"]
        child.end()


def test_a_child_that_does_not_end_soon_after_its_last_batch_is_killed() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.worker.quit()
    bench.clock.advance(1)
    bench.children[0].deliver()
    bench.happened()
    bench.clock.advance(EXIT_TIMEOUT_S - 0.1)
    assert bench.happened() == []
    bench.clock.advance(0.2)
    assert bench.happened() == ["child 0 killed"]


def test_a_child_that_ends_before_its_last_batches_when_it_quits_is_not_started_again() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    ended = bench.worker.quit()
    bench.happened()
    bench.children[0].end(begun=1)
    bench.children[1].end()
    bench.clock.advance(1000)
    assert bench.happened() == [f"dead: {KILLED}", "batch 1: WorkerLost begun"]
    assert ended.called
    assert not bench.clock.getDelayedCalls()


def test_quitting_while_the_model_loads_kills_the_child_and_fails_the_load() -> None:
    bench = Bench()
    bench.happened()
    ended = bench.worker.quit()
    assert bench.happened() == ["child 0 killed"]
    bench.children[0].ready()  # it was on its way
    assert not bench.failures
    bench.children[0].end()
    assert [str(error) for error in bench.failures] == [
        "model 'm' version 1: it was told to end, while it loaded"
    ]
    assert ended.called


def test_quitting_while_a_restart_waits_ends_at_once() -> None:
    bench = Bench()
    bench.ready()
    bench.children[1].end()
    bench.children[0].end()
    assert bench.worker.quit().called
    bench.clock.advance(1000)
    assert len(bench.children) == 2
    assert not bench.clock.getDelayedCalls()


def test_quitting_while_the_child_loads_again_kills_it() -> None:
    bench = Bench()
    bench.ready()
    bench.children[0].end()
    bench.clock.advance(0)
    bench.happened()
    ended = bench.worker.quit()
    assert bench.happened() == ["child 1 killed"]
    bench.children[1].end()
    assert bench.happened() == []
    assert ended.called


def test_whoever_quits_when_told_that_the_child_ended_ends_it_for_good() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    quitting = []
    bench.worker._changed = lambda condition, why: quitting.append((condition, bench.worker.quit()))
    bench.children[0].end(begun=1)
    bench.children[1].end()
    ((condition, ended),) = quitting
    assert condition is Condition.RESTARTING
    assert ended.called
    bench.clock.advance(1000)
    assert len(bench.children) == 2


def test_the_loop_lets_long_batches_begin_and_short_ones_not() -> None:
    bench = Bench()
    bench.ready()
    bench.do(1)
    bench.worker.let_begin()
    bench.children[0].deliver(compute=0.1)
    bench.happened()
    bench.do(1)
    bench.worker.let_begin()
    assert bench.happened() == ["child 0 begins"]


def test_without_a_spare_a_restart_begins_from_nothing() -> None:
    bench = Bench(keeps_spare=False)
    bench.ready()
    assert len(bench.children) == 1
    bench.children[0].end()
    bench.clock.advance(0)
    assert bench.happened()[-2:] == ["child 1 starts", "child 1 loads"]
    assert len(bench.children) == 2


def test_a_child_that_loads_for_too_long_is_killed_and_the_model_cannot_be_loaded() -> None:
    bench = Bench(load_timeout_s=60)
    bench.happened()
    bench.clock.advance(59)
    assert bench.happened() == []
    bench.clock.advance(1)
    assert bench.happened() == ["child 0 killed"]
    assert [str(failure) for failure in bench.failures] == [f"{TITLE}: {LATE}"]
    ended = bench.worker.quit()
    assert not ended.called
    bench.children[0].end()
    assert ended.called
    assert (bench.happened(), bench.clock.getDelayedCalls()) == ([], [])


def test_a_child_that_loads_too_long_after_a_restart_has_come_to_nothing_like_one_that_ends() -> (
    None
):
    bench = Bench(load_timeout_s=60)
    bench.ready()
    bench.children[0].end()
    conditions = []
    for _ in range(FAILURES_UNTIL_DEAD - 1):
        bench.clock.advance(1)  # after which it is started again
        bench.happened()
        bench.clock.advance(60)
        killed = bench.happened()
        assert killed == [f"child {len(bench.children) - 1} killed"]
        bench.children[-1].end()
        conditions += bench.happened()
    assert conditions == [f"restarting: {TITLE}: {LATE}", f"dead: {TITLE}: {LATE}"]
    bench.clock.advance(1)
    bench.children[-1].ready()
    assert bench.happened()[-1] == "alive: "
    assert not bench.failures

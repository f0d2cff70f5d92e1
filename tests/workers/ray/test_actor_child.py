"""A worker on Ray: what crosses, and how the loss of an actor is the loss of a process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import numpy as np
import pytest

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, Outcome
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import DeviceLost, InvalidInput, ModelError, ModelLoadError, WorkerLost
from batcher.models.protocol import LoadedModel, RemoteHook
from batcher.workers.load_turns import LoadTurns
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.process.messages import Prepare
from batcher.workers.process.worker import ProcessWorker
from batcher.workers.ray import actor
from batcher.workers.ray.actor_child import ActorChild
from tests.support.crossing import PATIENCE, Loop
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders
from tests.support.models import rows
from tests.workers.ray.memory_cluster import MemoryActor, MemoryCluster
from tests.workers.test_memory import batch_of

MODEL = """
from batcher.errors import DeviceLost, InvalidInput


class Model:
    def preprocess(self, inputs):
        if inputs["x"][0, 0] < 0:
            raise InvalidInput("below zero")
        return {"x": inputs["x"] + 1}

    def predict(self, inputs):
        x = inputs["x"]
        x *= 2  # a model may write into its inputs
        if x[0, 0] == -2:
            raise ValueError("as told")
        if x[0, 0] == -4:
            raise DeviceLost("gone")
        if x[0, 0] == -6:
            return {"y": [ValueError("this row"), *x[1:]]}
        return {"y": x}
"""

LOST = (
    "the actor was lost: The actor died unexpectedly before finishing this task. ip: 192.0.2.2 "
    "The actor is dead because its worker process has died."
)


class Bench:
    """A worker on a cluster in memory, the loop's side of it, and what happened there."""

    loaded: LoadedModel

    def __init__(self, definition: ModelDefinition) -> None:
        self.loop = Loop()
        self.cluster = MemoryCluster()
        self.outcomes: list[Outcome] = []
        self.changes: list[tuple[Condition, str]] = []
        self.progress: list[str] = []
        settings = ModelSettings(worker="ray", device="cpu", warmup=False, watchdog_s=60)
        options = WorkerOptions("test", "model 'm' version 1", settings.watchdog_s, 0.0, False)
        call = self.loop.call_from_thread
        loop_side = LoopSide(self.progress.append, call, self.loop.clock, LoadTurns(1))
        make = partial(ActorChild, options, self.cluster, Prepare(definition, settings), call)
        self.worker = ProcessWorker(loop_side, options, make, lambda delay: delay)

    def start(self) -> LoadedModel:
        """Start, and wait until the model is loaded."""
        loaded = self.loop.wait_for(
            self.worker.start(self._deliver, lambda *change: self.changes.append(change))
        )
        assert isinstance(loaded, LoadedModel), loaded
        return loaded

    def refusal(self) -> str:
        """Start, and return why the model cannot be loaded."""
        error = self.loop.error_of(self.worker.start(self._deliver, lambda *change: None))
        assert isinstance(error, ModelLoadError)
        assert self.loop.wait_for(self.worker.quit()) is None
        return str(error)

    @property
    def actor(self) -> MemoryActor:
        """The actor that was started last."""
        return self.cluster.actors[-1]

    def run(self, *values: float) -> Outcome:
        """Run one batch and return its outcome."""
        self.worker.do(batch_of(*values))
        self.actor.run()
        return self.outcome()

    def outcome(self) -> Outcome:
        """Wait for the next outcome, and forget it."""
        self.loop.run_until(lambda: bool(self.outcomes))
        return self.outcomes.pop(0)

    def restarted(self) -> str:
        """Wait until the worker has been lost and is back, and return why it was lost."""
        self.loop.run_until(lambda: (Condition.ALIVE, "") in self.changes)
        changes, self.changes = self.changes, []
        assert [condition for condition, _ in changes] == [Condition.RESTARTING, Condition.ALIVE]
        return changes[0][1]

    def _deliver(self, batch: Batch, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def bench(folders: Folders) -> Bench:
    bench = Bench(folders.python(MODEL))
    bench.loaded = bench.start()
    return bench


def firsts(outcome: Outcome) -> list[float]:
    """Return the first number of each row of a batch."""
    assert outcome.error is None
    return [float(part["y"][0, 0]) for part in outcome.results]


def test_a_batch_runs_in_the_actor_and_its_rows_are_the_server_s_own(bench: Bench) -> None:
    assert bench.progress == ["waiting for a node of Ray with 1 CPU", "loading"]
    assert bench.loaded.one_call
    outcome = bench.run(1, 2, 3)
    assert firsts(outcome) == [2, 4, 6]
    assert all(part["y"].flags.writeable for part in outcome.results)
    assert 0 <= outcome.collating <= outcome.compute


def test_answers_that_overtake_each_other_are_delivered_in_order(bench: Bench) -> None:
    for value in (1, 2):
        bench.worker.do(batch_of(value))
    bench.actor.run(behind=1)
    assert [firsts(bench.outcome()) for _ in range(2)] == [[2], [4]]


def test_what_the_model_raises_arrives_as_if_it_had_been_raised_here(bench: Bench) -> None:
    error = bench.run(-1, 5).error
    assert (type(error).__name__, str(error)) == ("ValueError", "as told")
    outcome = bench.run(-3, 5)
    assert [str(error) for error in outcome.failed.values()] == ["this row"]
    assert firsts(outcome)[1] == 10


def test_every_batch_that_was_sent_to_a_lost_actor_may_have_begun(bench: Bench) -> None:
    for value in (1, 2):
        bench.worker.do(batch_of(value))
        bench.worker._child.let_begin(60)
    bench.actor.kill()
    errors = [bench.outcome().error for _ in range(2)]
    assert [isinstance(error, WorkerLost) and error.begun for error in errors] == [True, True]
    assert bench.restarted() == LOST
    assert len(bench.cluster.actors) == 2
    assert firsts(bench.run(4)) == [8]


def test_an_actor_that_is_lost_while_nothing_runs_is_replaced_at_once(bench: Bench) -> None:
    bench.actor.kill()
    assert bench.restarted() == LOST
    assert firsts(bench.run(4)) == [8]


def test_an_actor_of_whose_end_ray_does_not_tell_is_replaced(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.workers.ray.actor_child.LOOK_S", 0.01)
    bench = Bench(folders.python(MODEL))
    bench.start()
    bench.worker.do(batch_of(1))
    bench.worker._child.let_begin(60)
    bench.actor.has_node = False
    assert bench.outcome().error.begun  # type: ignore[union-attr]
    lost = "the actor was lost: Ray's process on this machine has ended, or the connection with it"
    assert bench.restarted() == lost
    assert firsts(bench.run(4)) == [8]


def test_while_there_is_no_cluster_an_actor_is_asked_for_ever_more_seldom(bench: Bench) -> None:
    bench.cluster.is_there = False
    bench.actor.kill()
    clock = bench.loop.clock
    for delay in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30):
        bench.loop.run_until(lambda: bool(clock.getDelayedCalls()))
        (restart,) = clock.getDelayedCalls()
        assert restart.getTime() == pytest.approx(clock.seconds() + delay)
        clock.advance(delay)
    reasons = [reason for _, reason in bench.changes]
    assert reasons[0] == LOST
    assert set(reasons[1:]) == {"model 'm' version 1: ray.address: expected a cluster"}
    conditions = [condition for condition, _ in bench.changes]
    assert conditions[:3] == [Condition.RESTARTING] * 2 + [Condition.DEAD]
    bench.loop.run_until(lambda: bool(clock.getDelayedCalls()))
    bench.cluster.is_there = True
    clock.advance(30)
    bench.loop.run_until(lambda: bench.changes[-1] == (Condition.ALIVE, ""))
    assert firsts(bench.run(4)) == [8]


@pytest.mark.parametrize("was_loaded", [False, True])
def test_it_ends_also_while_ray_waits_for_its_head(folders: Folders, was_loaded: bool) -> None:
    bench = Bench(folders.python(MODEL))
    asked, may_return, start = Event(), Event(), bench.cluster.start

    def waits(*arguments: object) -> MemoryActor:
        asked.set()
        assert may_return.wait(PATIENCE)
        return start(*arguments)

    if was_loaded:
        bench.start()
        bench.cluster.start = waits  # type: ignore[method-assign]
        bench.actor.kill()
        bench.loop.run_until(asked.is_set)
    else:
        bench.cluster.start = waits  # type: ignore[method-assign]
        bench.worker.start(bench._deliver, lambda *change: None).addErrback(lambda _: None)
        assert asked.wait(PATIENCE)
    assert bench.loop.wait_for(bench.worker.quit()) is None
    may_return.set()


def test_an_actor_without_its_device_begins_nothing_more_and_is_replaced(bench: Bench) -> None:
    for value in (-2, 1):
        bench.worker.do(batch_of(value))
    bench.actor.run(behind=1)
    assert isinstance(bench.outcome().error, DeviceLost)
    later = bench.outcome().error
    assert isinstance(later, WorkerLost)
    assert not later.begun
    assert bench.restarted() == "its device is lost: gone"
    assert not bench.cluster.actors[0].is_alive
    assert firsts(bench.run(4)) == [8]


def test_an_actor_that_hangs_is_killed_and_replaced(bench: Bench) -> None:
    bench.worker.do(batch_of(1))
    bench.worker._child.let_begin(60)
    bench.loop.clock.advance(60)
    assert bench.outcome().error.begun  # type: ignore[union-attr]
    assert bench.restarted() == "a batch has run for more than 60 s"
    assert not bench.cluster.actors[0].is_alive


def test_arguments_that_cannot_be_sent_fail_their_batch_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = bench.actor.call

    def full(method: str, *arguments: object, group: str = "") -> object:
        monkeypatch.setattr(bench.actor, "call", call)
        raise RuntimeError("the object store is full")

    bench.worker.do(batch_of(1))
    bench.worker._child.let_begin(60)
    monkeypatch.setattr(bench.actor, "call", full)
    bench.worker.do(batch_of(2))
    bench.worker.do(batch_of(3))
    bench.actor.run(behind=1)
    outcomes = [bench.outcome() for _ in range(3)]
    assert str(outcomes[1].error) == "the object store is full"
    assert [firsts(outcomes[0]), firsts(outcomes[2])] == [[2], [6]]


def test_it_delivers_what_it_holds_before_it_ends(bench: Bench) -> None:
    bench.worker.do(batch_of(1))
    ended = bench.worker.quit()
    bench.actor.run()
    assert firsts(bench.outcome()) == [2]
    assert bench.loop.wait_for(ended) is None
    assert not bench.actor.is_alive
    assert bench.changes == []


def test_hooks_run_in_whatever_actor_has_the_model(bench: Bench) -> None:
    hook = bench.loaded.preprocess
    assert isinstance(hook, RemoteHook)
    assert bench.loaded.postprocess is None
    values, count = hook.run({"x": rows(1, 2)}, 2)
    np.testing.assert_array_equal(values["x"], rows(2, 3))
    assert count == 2
    with pytest.raises(InvalidInput, match="below zero"):
        hook.run({"x": rows(-1)}, 1)
    bench.actor.kill()
    with pytest.raises(WorkerLost):
        hook.run({"x": rows(1)}, 1)
    bench.restarted()
    assert hook.run({"x": rows(1)}, 1)[1] == 1


def test_an_actor_that_leaves_runs_its_hooks_to_their_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, call = bench.loaded.preprocess, bench.actor.call
    assert isinstance(hook, RemoteHook)
    begun, may_run = Event(), Event()

    def slow(method: str, *arguments: object, group: str = "") -> object:
        if method == "run_hook":
            begun.set()
            assert may_run.wait(PATIENCE)
        return call(method, *arguments, group=group)

    monkeypatch.setattr(bench.actor, "call", slow)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(hook.run, {"x": rows(1)}, 1)
        assert begun.wait(PATIENCE)
        ended = bench.worker.quit()
        bench.loop.run_until(lambda: bench.worker._child._quitting)
        assert bench.actor.is_alive
        may_run.set()
        np.testing.assert_array_equal(running.result(PATIENCE)[0]["x"], rows(2))
    assert bench.loop.wait_for(ended) is None
    assert not bench.actor.is_alive
    with pytest.raises(WorkerLost):
        hook.run({"x": rows(1)}, 1)


def test_files_that_are_others_on_the_node_are_not_loaded(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = folders.python(MODEL)
    code = definition.folder / "code.py"
    bench = Bench(definition)
    start = bench.cluster.start

    def changed(*arguments: object) -> MemoryActor:
        code.write_text(MODEL.replace("2", "3"))
        return start(*arguments)

    monkeypatch.setattr(bench.cluster, "start", changed)
    refusal = bench.refusal()
    assert refusal.startswith(f"model 'm' version 1: expected {code} on node ")
    assert refusal.endswith(" to be the file that the server has; it is another")


def test_a_node_without_the_files_says_which(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.workers.ray.actor_child.contents", lambda _: {"/no/net": (1, 1)})
    assert "expected /no/net on node " in Bench(folders.python(MODEL)).refusal()


def test_a_node_with_another_version_of_the_package_does_not_load(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actor, "__version__", "0.0.1")
    assert "got 0.0.1" in Bench(folders.python(MODEL)).refusal()


def test_without_a_cluster_the_model_cannot_be_loaded(folders: Folders) -> None:
    bench = Bench(folders.python(MODEL))
    bench.cluster.is_there = False
    assert bench.refusal() == "model 'm' version 1: ray.address: expected a cluster"


def test_a_model_that_fails_to_load_says_why(folders: Folders) -> None:
    bench = Bench(folders.python("raise OSError('no weights')"))
    assert "no weights" in bench.refusal()
    assert not bench.actor.is_alive


def test_errors_of_the_model_are_errors_of_the_request(bench: Bench) -> None:
    hook = bench.loaded.preprocess
    assert isinstance(hook, RemoteHook)
    with pytest.raises(ModelError):
        hook.run({"x": np.array([["a"]], object)}, 1)

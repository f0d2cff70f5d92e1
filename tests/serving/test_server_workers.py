"""A served model whose workers are lost.

What its state tells, what becomes of requests, how it is replaced and stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher.batching.worker import Condition
from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.errors import BatcherError, ModelNotReady, WorkerLost
from batcher.models.protocol import LoadedModel
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.server import ModelServer
from batcher.workers.thread import InferenceThread
from tests.serving.test_server_lifecycle import Stuck, listen
from tests.support.crossing import PATIENCE
from tests.support.http import STACKS, LoadingWorker, MemoryServer, ask
from tests.support.models import RecordingModel, checked, model_spec, rows
from tests.support.serving import SETTINGS, Serving

DEAD, RESTARTING = Condition.DEAD, Condition.RESTARTING
PATIENT = SETTINGS.model_copy(update={"timeout_ms": 1e6, "watchdog_s": 10.0})
"""A deadline long after the watchdog."""
WATCHDOG = PATIENT.watchdog_s


class Workers:
    """A server in memory with one model of several workers.

    Attributes:
        workers: those of every model that was loaded, in turn.
        served: the model.
    """

    def __init__(self, instances: int = 1, load: bool = True) -> None:
        self.clock = Clock()
        self.server = ModelServer(
            self.clock, lambda *call: self.clock.callLater(0, *call), ServerSettings()
        )
        self.workers: list[LoadingWorker] = []
        self.settings = SETTINGS.model_copy(update={"instances": instances, "max_batch_size": 1})
        self.added = self.start(self.server.add)
        self.served: ModelVersion = self.server.find("m")
        if load:
            for worker in self.workers:
                worker.loaded.callback(LoadedModel())

    def start(self, start: Callable[..., Deferred[None]]) -> Deferred[None]:
        """Have `start`, a method of the server, load the model."""
        definition = ModelDefinition(model_spec(), "python", Path(), Path())
        with patch("batcher.workers.making.InferenceThread", lambda *_: self._worker()):
            return start(definition, self.settings)

    def infer(self, value: float) -> list[Any]:
        """Return what will be the answer."""
        answer = listen(self.server.infer("m", {"x": rows(value)}))
        self.clock.advance(0)
        return answer

    def _worker(self) -> LoadingWorker:
        self.workers.append(LoadingWorker(RecordingModel(), self.clock))
        return self.workers[-1]


def error(answer: list[Any]) -> BatcherError:
    """Return the error that is the only answer."""
    (failure,) = answer
    assert isinstance(failure.value, BatcherError)
    return failure.value


def test_as_long_as_one_worker_lives_the_model_is_ready() -> None:
    bench = Workers(2)
    bench.workers[0].lose(DEAD, "hung")
    assert bench.served.state is ModelState.READY
    assert bench.server.unready() == {}
    answer = bench.infer(1)
    bench.workers[1].perform()
    assert answer[0].outputs["y"][0, 0] == 2


def test_a_model_that_is_started_again_is_not_ready_and_takes_requests() -> None:
    bench = Workers(2)
    bench.workers[0].lose(DEAD, "gone")
    bench.workers[1].lose(RESTARTING, "it crashed")
    assert bench.server.unready() == {"m/1": "restarting: it crashed"}
    answer = bench.infer(1)
    assert answer == []
    bench.workers[1].revive()
    assert bench.served.state is ModelState.READY
    assert bench.server.unready() == {}
    bench.workers[1].perform()
    assert answer[0].outputs["y"][0, 0] == 2


def test_why_it_still_is_not_ready_follows_what_the_last_start_ended_with() -> None:
    bench = Workers()
    bench.workers[0].lose(RESTARTING, "it crashed")
    bench.workers[0].lose(RESTARTING, "it was not loaded in time")
    assert bench.server.unready() == {"m/1": "restarting: it was not loaded in time"}
    bench.workers[0].revive()
    assert (bench.server.unready(), bench.served.detail) == ({}, "")


def test_a_broken_model_refuses_and_fails_what_it_had_and_serves_again_when_it_is_back() -> None:
    bench = Workers()
    begun, waiting, late = (bench.infer(value) for value in range(3))
    bench.workers[0].lose(DEAD, "it hangs")
    assert bench.server.unready() == {"m/1": "broken: it hangs"}
    assert isinstance(error(begun), WorkerLost)
    assert isinstance(error(waiting), WorkerLost)
    assert isinstance(error(late), ModelNotReady)
    assert "broken: it hangs" in str(error(late))
    refused = error(bench.infer(3))
    assert isinstance(refused, ModelNotReady)
    assert refused.retry_after == 5
    assert "m/1 is not ready: broken: it hangs" in str(refused)
    bench.workers[0].revive()
    answer = bench.infer(4)
    bench.workers[0].perform()
    assert answer[0].outputs["y"][0, 0] == 8


def test_a_broken_model_is_refused_also_by_who_looked_it_up_before() -> None:
    bench = Workers()
    bench.workers[0].lose(DEAD, "it hangs")
    with pytest.raises(ModelNotReady, match="broken: it hangs"):
        bench.served.infer({"x": rows(1)})


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ((RESTARTING, RESTARTING), ModelState.RESTARTING),
        ((DEAD, DEAD), ModelState.BROKEN),
        ((DEAD, None), ModelState.READY),
    ],
)
def test_a_worker_that_is_lost_while_another_still_loads_is_not_forgotten(
    conditions: tuple[Condition | None, ...], state: ModelState
) -> None:
    bench = Workers(3, load=False)
    for number, condition in enumerate(conditions):
        bench.workers[number].loaded.callback(LoadedModel())
        if condition is not None:
            bench.workers[number].lose(condition, "crashed")
    assert bench.served.state is ModelState.LOADING
    bench.workers[2].loaded.callback(LoadedModel())
    last = bench.workers[2]
    if state is not ModelState.READY:
        assert bench.served.state is ModelState.READY, "the last one lives"
        last.lose(conditions[0] or DEAD, "crashed")
    assert bench.served.state is state


def test_a_model_of_which_every_worker_was_lost_while_it_loaded_does_not_become_ready() -> None:
    bench = Workers(2, load=False)
    bench.workers[0].loaded.callback(LoadedModel())
    bench.workers[0].lose(RESTARTING, "crashed")
    bench.workers[1].lose(RESTARTING, "crashed too")
    bench.workers[1].loaded.callback(LoadedModel())
    assert bench.server.unready() == {"m/1": "restarting: crashed too"}
    bench.workers[0].revive()
    assert bench.server.unready() == {}


@pytest.mark.parametrize("condition", [DEAD, RESTARTING])
def test_a_model_without_workers_is_unloaded_at_once(condition: Condition) -> None:
    bench = Workers()
    bench.workers[0].lose(condition, "gone")
    assert listen(bench.server.unload(bench.served)) == [None]
    assert bench.served.state is ModelState.UNLOADED
    assert bench.server.unready() == {}


def test_a_model_whose_last_worker_dies_while_it_is_unloaded_waits_for_nobody() -> None:
    bench = Workers()
    answers = [bench.infer(value) for value in range(4)]
    unloaded = listen(bench.server.unload(bench.served))
    assert unloaded == []
    bench.workers[0].lose(DEAD, "it hangs")
    assert unloaded == [None]
    assert [error(answer).http_status for answer in answers] == [503] * 4


@pytest.mark.parametrize("condition", [DEAD, RESTARTING])
def test_a_model_without_workers_can_be_replaced(condition: Condition) -> None:
    bench = Workers()
    bench.workers[0].lose(condition, "gone")
    replaced = listen(bench.start(bench.server.replace))
    assert replaced == []
    bench.workers[1].loaded.callback(LoadedModel())
    assert replaced == [None]
    assert bench.served.state is ModelState.UNLOADED
    assert bench.server.unready() == {}
    answer = bench.infer(3)
    bench.workers[1].perform()
    assert answer[0].outputs["y"][0, 0] == 6


def test_a_version_without_workers_is_passed_over_for_an_older_one() -> None:
    server = MemoryServer(
        RecordingModel(model_spec(version="1")), RecordingModel(model_spec(version="2"))
    )
    assert server.server.find("m").spec.version == "2"
    server.workers["m/2"].lose(DEAD, "gone")
    assert server.server.find("m").spec.version == "1"


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(("condition", "word"), [(DEAD, "broken"), (RESTARTING, "restarting")])
def test_readyz_names_the_model_and_why(stack: str, condition: Condition, word: str) -> None:
    server = MemoryServer(expose_errors=True)
    assert STACKS[stack](server, ask("/readyz")).status == 200
    server.workers["m/1"].lose(condition, "it hangs")
    answer = STACKS[stack](server, ask("/readyz"))
    assert answer.status == 503
    assert json.loads(answer.body)["waiting_for"] == {"m/1": f"{word}: it hangs"}
    takes_requests = STACKS[stack](server, ask("/v2/models/m/ready")).status
    assert takes_requests == (200 if condition is RESTARTING else 503)
    assert STACKS[stack](server, ask("/livez")).status == 200
    server.workers["m/1"].revive()
    assert STACKS[stack](server, ask("/readyz")).status == 200


def hanging() -> tuple[Serving, Stuck, Any]:
    """Return a server whose model hangs, was given up for it, and what its request was answered."""
    serving, stuck = Serving(), Stuck()
    serving.add_ready(predict=stuck, settings=PATIENT)
    answer = listen(serving.infer(1))
    assert stuck.entered.wait(PATIENCE)
    serving.loop.clock.advance(WATCHDOG)
    return serving, stuck, answer


def test_a_thread_that_hangs_breaks_its_model_until_it_is_back() -> None:
    serving, stuck, answer = hanging()
    assert isinstance(error(answer), WorkerLost)
    assert serving.server.unready() == {
        "m/1": f"broken: it hangs: a batch has run for more than {WATCHDOG:g} s"
    }
    stuck.leave.set()
    while serving.server.unready():
        serving.loop.step()
    assert serving.values(serving.infer(2)) == [4]
    serving.end()


def test_of_two_threads_one_may_hang_while_the_other_serves() -> None:
    serving, stuck = Serving(), Stuck()

    def predict(inputs: Any) -> Any:
        return stuck(inputs) if inputs["x"][0, 0] == 1 else {"y": inputs["x"] * 2}

    model = RecordingModel(predict=predict)
    serving.add_ready(
        load=lambda progress: checked(model), settings=PATIENT.model_copy(update={"instances": 2})
    )
    hung = listen(serving.infer(1))
    assert stuck.entered.wait(PATIENCE)
    assert serving.values(serving.infer(2)) == [4]
    serving.loop.clock.advance(WATCHDOG)
    assert isinstance(error(hung), WorkerLost)
    assert serving.server.unready() == {}
    assert [serving.values(serving.infer(value)) for value in (3, 4)] == [[6], [8]]
    stuck.leave.set()
    serving.end()


def test_a_thread_that_hangs_delays_neither_unload_nor_drain() -> None:
    serving, stuck, _ = hanging()
    assert listen(serving.server.drain()) == [None]
    assert listen(serving.server.unload(serving.server.find("m"))) == [None]
    ended = listen(serving.server.stop())
    assert ended == [], "its thread has not ended, which nobody waits for"
    assert serving.loop.clock.getDelayedCalls() == []
    stuck.leave.set()
    while not ended:
        serving.loop.step()


def test_no_thread_of_a_model_holds_up_the_end_of_the_process() -> None:
    serving, stuck, _ = hanging()
    (worker,) = serving.server.find("m").workers
    assert isinstance(worker, InferenceThread)
    assert worker._thread.daemon
    stuck.leave.set()
    serving.end()

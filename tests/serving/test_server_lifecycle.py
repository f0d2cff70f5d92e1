"""The life of a model as a table, and the end of a server.

Drain, stop, and what is told meanwhile.
"""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher.config.model_file import ModelDefinition
from batcher.config.settings import ServerSettings
from batcher.core.request import Parameters
from batcher.errors import BatcherError, Draining, ModelLoadError
from batcher.models.protocol import Progress
from batcher.serving.assembly import Assembly
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import STATES, Keeper, ModelState, ModelVersion
from batcher.workers.load_turns import LoadTurns
from batcher.workers.pools import make_pools
from tests.support.crossing import PATIENCE
from tests.support.models import RecordingModel, checked, double, model_spec
from tests.support.serving import SETTINGS, Serving

LOADING, READY, FAILED, STOPPED = (
    ModelState.LOADING,
    ModelState.READY,
    ModelState.FAILED,
    ModelState.STOPPED,
)
UNLOADING, UNLOADED = ModelState.UNLOADING, ModelState.UNLOADED
SERVED = (READY, ModelState.RESTARTING, ModelState.BROKEN)

DEFINITION = ModelDefinition(model_spec(), "python", Path(), Path())
LAWFUL = {(LOADING, READY), (LOADING, FAILED), (READY, UNLOADING), (UNLOADING, UNLOADED)}
LAWFUL |= {
    (LOADING, UNLOADING),
    (FAILED, UNLOADED),
    *product((LOADING, FAILED, UNLOADING), (STOPPED,)),
}
LAWFUL |= {*product(SERVED, (UNLOADING, STOPPED)), *permutations(SERVED, 2)}


class RecordingKeeper(Keeper):
    """Records in `texts` what a version tells of its changes."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def changed(self, version: ModelVersion) -> None:
        self.texts.append(version.status_text)

    def reported(self, version: ModelVersion, text: str) -> None:
        self.texts.append(text)

    def ended(self, version: ModelVersion) -> None:
        pass

    def successor(self, version: ModelVersion) -> ModelVersion:
        return version


def loading_model(texts: list[str]) -> ModelVersion:
    """Return a model in its first state; `texts` gets what it tells of its changes."""
    clock = Clock()

    def call(function: Any, *arguments: Any) -> None:
        function(*arguments)

    parts = Assembly(
        clock, call, None, make_pools(ServerSettings(), call, clock), ServerMetrics(), LoadTurns(1)
    )
    return ModelVersion(DEFINITION, SETTINGS, parts, RecordingKeeper(texts))


class Stuck:
    """A model that computes until it is let go."""

    def __init__(self) -> None:
        self.entered = Event()
        self.leave = Event()

    def __call__(self, inputs: Any) -> dict[str, Any]:
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        return double(inputs)


def listen(deferred: Deferred[Any]) -> list[Any]:
    """Return a list that will hold the result of `deferred`."""
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    return fired


@pytest.mark.parametrize(
    ("old", "new"), [*product(ModelState, ModelState)], ids=lambda state: state.value
)
def test_a_model_goes_from_state_to_state_only_as_the_table_allows(
    old: ModelState, new: ModelState
) -> None:
    texts: list[str] = []
    version = loading_model(texts)
    version.state = old
    if (old, new) in LAWFUL:
        version.become(new, "why")
        assert (version.state, version.detail, texts) == (new, "why", [f"{new.value}: why"])
    else:
        with pytest.raises(RuntimeError, match=f"m/1: {old.value} cannot become {new.value}"):
            version.become(new)
        assert version.state is old


def test_every_state_has_its_line_in_the_table() -> None:
    assert set(STATES) == set(ModelState)
    assert {(old, new) for old, news in STATES.items() for new in news} == LAWFUL


def test_a_model_begins_by_loading() -> None:
    assert loading_model([]).state is LOADING


def test_a_draining_server_answers_what_it_took_and_refuses_more() -> None:
    serving, stuck = Serving(), Stuck()
    serving.add_ready(predict=stuck)
    running, waiting = serving.infer(1), serving.infer(2)
    assert not serving.server.draining
    ended = listen(serving.server.drain())
    assert serving.server.draining
    refused = listen(serving.infer(3))
    assert isinstance(refused[0].value, Draining)
    assert refused[0].value.retry_after >= 1
    assert ended == []
    stuck.leave.set()
    assert serving.values(running) == [2]
    assert serving.values(waiting) == [4]
    assert ended == [None]
    serving.end()


def test_an_unknown_model_is_unknown_also_while_the_server_drains() -> None:
    serving = Serving()
    serving.add_ready()
    serving.server.drain()
    assert listen(serving.infer(1, model="other"))[0].value.http_status == 404
    serving.end()


def test_a_server_without_models_drains_and_stops_at_once() -> None:
    serving = Serving()
    assert listen(serving.server.drain()) == [None]
    assert listen(serving.server.stop()) == [None]


def test_stopping_fails_what_is_still_here_and_ends_when_the_threads_have() -> None:
    serving, stuck = Serving(), Stuck()
    serving.add_ready(predict=stuck)
    running, waiting = listen(serving.infer(1)), listen(serving.infer(2))
    assert stuck.entered.wait(PATIENCE)
    ended = listen(serving.server.stop())
    for answer in (running, waiting):
        assert isinstance(answer[0].value, Draining)
        assert answer[0].value.retry_after == 0, "it may have run"
    assert serving.server.unready() == {"m/1": "stopped: the server was stopped"}
    assert ended == [], "its model still computes"
    stuck.leave.set()
    while not ended:
        serving.loop.step()
    assert serving.server.metrics.model("m", "1").batch_size.count == 1, "what waited was never run"
    assert serving.loop.clock.getDelayedCalls() == []


def test_a_stopped_server_refuses_requests() -> None:
    serving = Serving()
    serving.add_ready()
    serving.end()
    assert isinstance(listen(serving.infer(1))[0].value, Draining)


def test_stopping_twice_is_harmless_and_waits_for_the_threads_both_times() -> None:
    serving, stuck = Serving(), Stuck()
    serving.add_ready(predict=stuck)
    listen(serving.infer(1))
    assert stuck.entered.wait(PATIENCE)
    first, second = listen(serving.server.stop()), listen(serving.server.stop())
    assert (first, second) == ([], []), "the thread has not ended"
    stuck.leave.set()
    while not first:
        serving.loop.step()
    assert second == [None]


def test_a_model_that_failed_is_stopped_like_the_others() -> None:
    serving = Serving()

    def load(progress: Progress) -> Any:
        raise ModelLoadError("broken")

    serving.loop.error_of(serving.add(load=load))
    serving.end()
    assert serving.server.find("m").state is STOPPED


@pytest.mark.parametrize("load_fails", [False, True], ids=["loads", "fails"])
def test_a_model_that_still_loads_when_the_server_stops_stays_stopped(load_fails: bool) -> None:
    serving, entered, leave = Serving(), Event(), Event()

    def load(progress: Progress) -> Any:
        entered.set()
        assert leave.wait(PATIENCE)
        progress("too late to be told")
        if load_fails:
            raise ModelLoadError("broken")
        return checked(RecordingModel())

    loaded = listen(serving.add(load=load))
    assert entered.wait(PATIENCE)
    ended = listen(serving.server.stop())
    assert ended == []
    leave.set()
    while not ended:
        serving.loop.step()
    assert loaded[0] is None or isinstance(loaded[0].value, BatcherError), (
        "told in our own words, if anything"
    )
    assert serving.server.find("m").state is STOPPED
    assert serving.server.unready() == {"m/1": "stopped: the server was stopped"}
    assert serving.progress == []


def test_a_server_that_stopped_runs_nothing_more_on_its_pool() -> None:
    serving = Serving()
    serving.add_ready()
    version = serving.server.find("m")
    serving.end()
    with pytest.raises(Draining):
        version.run_on_pool(1, lambda: None, Parameters(8.0))


def test_of_two_versions_with_one_name_the_log_says_which_serves() -> None:
    serving = Serving()
    serving.add_ready()
    serving.progress.clear()
    definition = serving.server.find("m").definition

    def fail(progress: Progress) -> Any:
        progress("loading")
        raise ModelLoadError("no disk")

    serving.loop.error_of(serving.server.replace(definition, SETTINGS, fail))
    assert {text for _, text in serving.progress} == {
        "a new one, which does not serve yet: loading",
        "a new one, which does not serve yet: failed: no disk",
        "a new one, which does not serve yet: unloaded",
    }
    serving.progress.clear()
    replaced = serving.server.replace(definition, SETTINGS, lambda _: checked(RecordingModel()))
    assert serving.loop.wait_for(replaced) is None
    told = [text for _, text in serving.progress]
    assert "a new one, which does not serve yet: ready, loaded in 0.0 s" in told
    assert any(text.startswith("the earlier one, which was replaced: unload") for text in told)
    serving.end()

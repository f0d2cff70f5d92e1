"""Models that leave while the server goes on, and versions that are replaced by themselves.

No request is lost.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from batcher.core.epoch import Epoch
from batcher.errors import ConfigError, Draining, ModelLoadError, ModelNotReady, UnknownModel
from batcher.models.protocol import Progress
from batcher.serving.model_version import ModelState
from tests.serving.test_server_lifecycle import DEFINITION, Stuck, listen
from tests.support.crossing import PATIENCE
from tests.support.models import RecordingModel, checked, double, model_spec
from tests.support.serving import SETTINGS, Serving


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Return a server that is stopped after the test."""
    serving = Serving()
    yield serving
    serving.end()


def triple(inputs: Any) -> dict[str, Any]:
    return {"y": inputs["x"] * 3}


def load_of(model: Any) -> Any:
    return lambda progress: checked(model)


def test_a_model_that_is_unloaded_answers_what_it_took_and_refuses_more(serving: Serving) -> None:
    stuck = Stuck()
    serving.add_ready(predict=stuck)
    served = serving.server.find("m")
    running, waiting = serving.infer(1), serving.infer(2)
    unloaded = listen(serving.server.unload(served))
    assert served.state is ModelState.UNLOADING
    refused = listen(serving.infer(3))[0].value
    assert isinstance(refused, ModelNotReady)
    assert "unloading" in str(refused)
    stuck.leave.set()
    assert (serving.values(running), serving.values(waiting)) == ([2], [4])
    assert unloaded == [None]
    assert served.state is ModelState.UNLOADED
    assert serving.server.unready() == {}, "nobody misses it"


def test_requests_in_a_hook_are_answered_before_the_model_goes(serving: Serving) -> None:
    entered, leave = Event(), Event()

    def preprocess(inputs: Any) -> Any:
        entered.set()
        assert leave.wait(PATIENCE)
        return inputs

    serving.add_ready(preprocess=preprocess)
    answer = serving.infer(1)
    assert entered.wait(PATIENCE)
    unloaded = listen(serving.server.unload(serving.server.find("m")))
    assert unloaded == []
    leave.set()
    assert serving.values(answer) == [2]
    assert unloaded == [None]


def test_a_model_that_hangs_is_unloaded_after_the_drain_timeout() -> None:
    serving, stuck = Serving(drain_timeout_s=7), Stuck()
    serving.add_ready(predict=stuck)
    answer = listen(serving.infer(1))
    assert stuck.entered.wait(PATIENCE)
    unloaded = listen(serving.server.unload(serving.server.find("m")))
    serving.loop.clock.advance(6.9)
    assert (answer, unloaded) == ([], [])
    serving.loop.clock.advance(0.2)
    assert isinstance(answer[0].value, Draining)
    assert unloaded == [None]
    stuck.leave.set()
    serving.end()


def test_unloading_twice_waits_both_times(serving: Serving) -> None:
    stuck = Stuck()
    serving.add_ready(predict=stuck)
    answer, served = serving.infer(1), serving.server.find("m")
    first, second = listen(serving.server.unload(served)), listen(serving.server.unload(served))
    assert (first, second) == ([], [])
    stuck.leave.set()
    assert serving.values(answer) == [2]
    assert (first, second) == ([None], [None])


def test_whoever_waits_for_an_unload_may_leave(serving: Serving) -> None:
    stuck = Stuck()
    serving.add_ready(predict=stuck)
    answer, served = serving.infer(1), serving.server.find("m")
    leaving = serving.server.unload(served)
    listen(leaving)
    leaving.cancel()
    stuck.leave.set()
    assert serving.values(answer) == [2]
    assert served.state is ModelState.UNLOADED


def test_an_unloaded_model_is_let_go_of(serving: Serving) -> None:
    made: list[weakref.ref[RecordingModel]] = []

    def load(progress: Progress) -> Any:
        model = RecordingModel()
        model.preprocess = dict
        made.append(weakref.ref(model))
        return checked(model)

    serving.loop.wait_for(serving.add(load=load))
    assert serving.values(serving.infer(1)) == [2]
    served = serving.server.find("m")
    serving.loop.wait_for(serving.server.unload(served))
    while serving.server.lifecycle.alive:
        serving.loop.step()
    next(iter(served.workers))._thread.join(PATIENCE)  # type: ignore[attr-defined]
    gc.collect()
    assert made[0]() is None


@pytest.mark.parametrize("end", ["replaced", "gone", "gone before it loads"])
def test_of_a_version_that_has_ended_nothing_is_in_a_circle_that_was_frozen(
    serving: Serving, end: str
) -> None:
    left: dict[str, weakref.ref[Any]] = {}

    def load(progress: Progress) -> Any:
        model = RecordingModel()
        model.preprocess = dict
        left["model"] = weakref.ref(model)
        return checked(model)

    def begin(load: Any) -> None:
        left["load"] = weakref.ref(load)
        loaded = serving.add(load=load)
        if end != "gone before it loads":
            serving.loop.wait_for(loaded)
            serving.values(serving.infer(1))
        version = serving.server.find("m")
        left["definition"] = weakref.ref(version.definition)
        (worker,) = version.workers
        left["worker"] = weakref.ref(worker)
        left["thread"] = weakref.ref(worker._thread)  # type: ignore[attr-defined]

    begin(load)
    del load
    gc.freeze()  # the collector will never look at what is there
    if end == "replaced":
        replaced = serving.server.replace(DEFINITION, SETTINGS, load_of(RecordingModel()))
        serving.loop.wait_for(replaced)
    else:
        listen(serving.server.lifecycle.forget(serving.server.find("m")))
    serving.loop.run_until(lambda: len(serving.server.lifecycle.alive) == (end == "replaced"))
    thread = left["thread"]()
    if thread is not None:
        thread.join(PATIENCE)
        del thread
    gc.collect()
    assert [what for what, each in left.items() if each() is not None] == []


def test_an_unloaded_or_failed_version_may_be_added_again_and_a_ready_one_not(
    serving: Serving,
) -> None:
    def broken(progress: Progress) -> Any:
        raise ModelLoadError("broken")

    serving.loop.error_of(serving.add(load=broken))
    serving.add_ready()
    with pytest.raises(ConfigError, match="there twice"):
        serving.add()
    serving.loop.wait_for(serving.server.unload(serving.server.find("m")))
    serving.add_ready(predict=triple)
    assert serving.values(serving.infer(1)) == [3]


def test_a_model_that_is_unloaded_while_it_loads_does_not_come_back_and_is_waited_for(
    serving: Serving,
) -> None:
    leave = Event()

    def load(progress: Progress) -> Any:
        assert leave.wait(PATIENCE)
        return checked(RecordingModel())

    loaded = listen(serving.add(load=load))
    served = serving.server.find("m")
    unloaded = listen(serving.server.unload(served))
    assert (unloaded, served.state) == ([], ModelState.UNLOADING)
    with pytest.raises(ConfigError, match="there twice"):
        serving.add()
    leave.set()
    while not loaded or not unloaded:
        serving.loop.step()
    assert served.state is ModelState.UNLOADED


def test_a_version_is_replaced_without_a_pause(serving: Serving) -> None:
    stuck = Stuck()
    serving.add_ready(predict=stuck)
    old = serving.server.find("m")
    running = serving.infer(1)
    replaced = serving.server.replace(DEFINITION, SETTINGS, load_of(RecordingModel(predict=triple)))
    assert serving.server.find("m") is old, "it serves until the new one is ready"
    assert serving.loop.wait_for(replaced) is None
    assert serving.values(serving.infer(1)) == [3]
    stuck.leave.set()
    assert serving.values(running) == [2], "what the old one had taken, it answers"
    assert old.state is ModelState.UNLOADED
    assert serving.server.versions("m") == ["1"]


def test_a_version_that_cannot_be_replaced_goes_on(serving: Serving) -> None:
    def broken(progress: Progress) -> Any:
        raise ModelLoadError("broken")

    serving.add_ready()
    assert isinstance(
        serving.loop.error_of(serving.server.replace(DEFINITION, SETTINGS, broken)), ModelLoadError
    )
    assert serving.values(serving.infer(1)) == [2]
    assert serving.server.unready() == {}
    while len(serving.server.lifecycle.alive) > 1:
        serving.loop.step()
    assert serving.server.metrics.model("m", "1").load is serving.server.find("m").scheduler


def test_a_model_with_hooks_is_let_go_of_though_its_version_is_still_listed(
    serving: Serving,
) -> None:
    class Hook:
        def __call__(self, values: Any) -> Any:
            return values

    made = []

    def load(progress: Progress) -> Any:
        model = RecordingModel()
        model.preprocess = Hook()
        made.append(weakref.ref(model.preprocess))
        return checked(model)

    serving.add_ready(load=load)
    version = serving.server.find("m")
    serving.loop.wait_for(serving.server.unload(version))
    while serving.server.lifecycle.alive:
        serving.loop.step()
    assert made[0]() is None
    assert serving.server.find("m") is version


@pytest.mark.parametrize(("name", "version"), [("m", "9"), ("other", "1")])
def test_what_is_not_there_cannot_be_replaced_and_the_server_still_stops(
    name: str, version: str
) -> None:
    serving = Serving()
    serving.add_ready()
    definition = replace(DEFINITION, spec=model_spec(name=name, version=version))
    with pytest.raises(UnknownModel):
        serving.server.replace(definition, SETTINGS, load_of(RecordingModel()))
    assert serving.loop.wait_for(serving.server.stop()) is None


def test_a_version_that_was_made_and_never_started_does_not_hold_up_the_stop() -> None:
    serving = Serving()
    serving.server.lifecycle.make(DEFINITION, SETTINGS, load_of(RecordingModel()))
    assert serving.loop.wait_for(serving.server.stop()) is None


def test_a_required_model_that_is_loaded_again_is_still_required(serving: Serving) -> None:
    def broken(progress: Progress) -> Any:
        raise ModelLoadError("broken")

    serving.loop.error_of(serving.add(load=broken))
    again = serving.server.add(DEFINITION, SETTINGS, load_of(RecordingModel()), required=False)
    assert serving.server.unready() == {"m/1": "loading: waiting to be loaded"}
    assert serving.loop.wait_for(again) is None


def test_what_is_decoded_while_its_model_is_replaced_goes_to_the_new_one(serving: Serving) -> None:
    serving.add_ready()
    old = serving.server.find("m")
    serving.loop.wait_for(
        serving.server.replace(DEFINITION, SETTINGS, load_of(RecordingModel(predict=triple)))
    )
    assert old.successor() is serving.server.find("m")
    serving.loop.wait_for(serving.server.unload(serving.server.find("m")))
    assert old.successor() is old, "there is none"


def test_a_replacement_of_a_version_that_was_unloaded_meanwhile_is_not_served(
    serving: Serving,
) -> None:
    serving.add_ready()
    replaced = serving.server.replace(DEFINITION, SETTINGS, load_of(RecordingModel(predict=triple)))
    listen(serving.server.unload(serving.server.find("m")))
    assert isinstance(serving.loop.error_of(replaced), ModelLoadError)
    assert serving.server.find("m").state is ModelState.UNLOADED
    assert isinstance(listen(serving.infer(1))[0].value, ModelNotReady)


def test_stopping_ends_a_replacement_that_still_loads() -> None:
    serving, entered, leave = Serving(), Event(), Event()
    serving.add_ready()

    def load(progress: Progress) -> Any:
        entered.set()
        assert leave.wait(PATIENCE)
        return checked(RecordingModel(predict=double))

    listen(serving.server.replace(DEFINITION, SETTINGS, load))
    assert entered.wait(PATIENCE)
    ended = listen(serving.server.stop())
    assert ended == []
    leave.set()
    while not ended:
        serving.loop.step()


def test_whoever_watches_is_told_of_every_change(serving: Serving) -> None:
    seen: list[Epoch] = []
    serving.server.watch(lambda: seen.append(serving.server.epoch))
    serving.add_ready()
    before = len(seen)
    serving.loop.wait_for(serving.server.unload(serving.server.find("m")))
    assert len(seen) == before + 2, "unloading, and unloaded"
    assert len(set(seen)) == len(seen)
    assert [epoch.over for epoch in seen] == [True] * (len(seen) - 1) + [False]


def test_what_a_version_says_while_it_loads_ends_no_look_up(serving: Serving) -> None:
    serving.add_ready()
    epoch = serving.server.epoch
    version = serving.server.lifecycle.make(DEFINITION, SETTINGS, load_of(RecordingModel()))
    version.report("compiling")
    assert serving.progress[-1] == ("m/1", "a new one, which does not serve yet: compiling")
    assert not epoch.over
    serving.loop.wait_for(version.start())
    assert epoch.over
    version.unload()


def test_what_is_compiled_for_a_batch_is_told_and_counted_and_a_new_load_is_not(
    serving: Serving,
) -> None:
    serving.add_ready()
    version = serving.server.find("m")
    told = len(serving.progress)
    version.report("compiling, for inputs of [2, 4]")  # a worker that was started again
    later = ["compiling, for inputs of [3, 4]", "not compiled: no code. This part runs as it is"]
    for text in later:
        version.report(f"after the load: {text}")
    assert serving.progress[told:] == [("m/1", f"after the load: {text}") for text in later]
    assert version.state is ModelState.READY
    assert serving.server.metrics.model("m", "1").recompilations == 1

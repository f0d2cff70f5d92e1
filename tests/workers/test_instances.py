"""Several workers of one model, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from batcher.batching.worker import Condition, ConditionListener, Deliver
from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from batcher.models.protocol import LoadedModel
from batcher.workers.instances import Instances
from batcher.workers.load_turns import LoadTurns
from batcher.workers.making import make_workers
from tests.support.crossing import Loop
from tests.support.models import RecordingModel, checked, model_spec
from tests.support.serving import SETTINGS

ALIVE, RESTARTING, DEAD = Condition.ALIVE, Condition.RESTARTING, Condition.DEAD


class Single:
    """A worker that does nothing by itself."""

    def __init__(self) -> None:
        self.loaded: Deferred[LoadedModel] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.quits = 0
        self.changed: ConditionListener
        self.deliver: Deliver

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        self.deliver, self.changed = deliver, changed
        return self.loaded

    def quit(self) -> Deferred[None]:
        self.quits += 1
        return self.ended if self.quits == 1 else succeed(None)


class Bench:
    """Three workers and what was told of them."""

    def __init__(self) -> None:
        self.singles = [Single() for _ in range(3)]
        self.instances = Instances(self.singles)  # type: ignore[arg-type]  # nothing is run on them
        self.told: list[tuple[int, bool]] = []
        self.seen: list[tuple[Condition, str]] = []
        self.fired: list[Any] = []

    def start(self) -> None:
        deliver: Deliver = lambda batch, outcome: None  # noqa: E731 - of this type
        started = self.instances.start(deliver, lambda *told: self.told.append(told), self._changed)
        started.addBoth(self.fired.append)
        assert all(single.deliver is deliver for single in self.singles)

    def _changed(self) -> None:
        self.seen.append((self.instances.condition, self.instances.reason))


def test_they_are_ready_when_all_are() -> None:
    bench = Bench()
    bench.start()
    results = [LoadedModel(timings={1: float(number)}) for number in range(3)]
    for number in (2, 0):
        bench.singles[number].loaded.callback(results[number])
        assert bench.fired == []
    bench.singles[1].loaded.callback(results[1])
    assert bench.fired == [results[0]]


def test_one_that_cannot_load_fails_them_all_with_its_reason_and_all_are_let_go() -> None:
    bench = Bench()
    bench.start()
    bench.singles[0].loaded.callback(LoadedModel())
    bench.singles[1].loaded.errback(ModelLoadError("no memory"))
    assert isinstance(bench.fired[0], Failure)
    assert isinstance(bench.fired[0].value, ModelLoadError)
    assert str(bench.fired[0].value) == "no memory"
    assert [single.quits for single in bench.singles] == [1, 1, 1]
    bench.singles[2].loaded.errback(ModelLoadError("no memory either"))
    assert len(bench.fired) == 1


@pytest.mark.parametrize(
    ("conditions", "best"),
    [
        ((ALIVE, DEAD, DEAD), ALIVE),
        ((DEAD, RESTARTING, ALIVE), ALIVE),
        ((DEAD, RESTARTING, DEAD), RESTARTING),
        ((DEAD, DEAD, DEAD), DEAD),
    ],
)
def test_they_are_what_the_best_of_them_is(
    conditions: tuple[Condition, ...], best: Condition
) -> None:
    bench = Bench()
    bench.start()
    for number, condition in enumerate(conditions):
        bench.singles[number].changed(condition, f"{number} is {condition.value}")
    assert bench.instances.condition is best
    assert bench.instances.reason == f"2 is {conditions[2].value}"
    assert bench.told == [
        (number, condition is ALIVE) for number, condition in enumerate(conditions)
    ]
    assert bench.seen[-1] == (best, f"2 is {conditions[2].value}"), "it is told when it has changed"


def test_they_have_ended_when_all_have() -> None:
    bench = Bench()
    ended: list[None] = []
    bench.instances.quit().addCallback(ended.append)
    for single in bench.singles:
        assert ended == []
        single.ended.callback(None)
    assert ended == [None]


def test_each_instance_is_loaded_by_itself_and_takes_the_device_whose_turn_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    definition = ModelDefinition(model_spec(), "python", Path(), Path())
    devices: list[str] = []

    def load(definition: ModelDefinition, settings: Any, progress: Any) -> Any:
        devices.append(settings.device)
        return checked(RecordingModel())

    monkeypatch.setattr("batcher.workers.making.load_model", load)
    loop = Loop()
    settings = SETTINGS.model_copy(update={"instances": 5, "device": "cpu,cuda:1"})
    workers = Instances(
        make_workers(
            definition,
            settings,
            None,
            lambda text: None,
            loop.call_from_thread,
            loop.clock,
            LoadTurns(1),
        )
    )
    assert len([*workers]) == 5
    assert not isinstance(
        loop.wait_for(workers.start(lambda *_: None, lambda *_: None, lambda: None)), Failure
    )
    assert sorted(devices) == ["cpu"] * 3 + ["cuda:1"] * 2
    assert loop.wait_for(workers.quit()) is None


def test_a_model_that_hands_something_over_runs_in_its_first_instance_alone() -> None:
    bench = Bench()
    bench.start()
    loaded = [
        LoadedModel(False, preprocess=dict, postprocess=dict, hands_over=True) for _ in range(3)
    ]
    for single, each in zip(bench.singles, loaded, strict=True):
        single.loaded.callback(each)
    assert bench.fired == [loaded[0]]
    bench.singles[1].changed(DEAD, "it ended")
    bench.singles[1].changed(ALIVE, "")
    assert bench.told == [(1, False), (2, False)]
    assert bench.instances.alive == 1
    bench.singles[0].changed(RESTARTING, "it ended")
    assert bench.instances.condition is RESTARTING

"""A served model whose instances come and go: reload, unload, drain and stop while one comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event

import pytest

from batcher.config.autoscale import AutoscaleSettings
from batcher.config.model_file import ModelDefinition
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Hook, Progress
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.monitoring.facts import facts_of
from tests.support.crossing import PATIENCE
from tests.support.models import RecordingModel, checked, model_spec
from tests.support.serving import SETTINGS, Serving

SCALED = SETTINGS.model_copy(update={"worker": "ray", "autoscale": AutoscaleSettings(min=1, max=3)})


class Bench:
    """A server with one model, of which each instance loads when it may.

    Attributes:
        loads: loads that have begun.
        may_load: while it is not set, no load ends.
        hooks: `preprocess` and `postprocess` of the model.
    """

    def __init__(self, preprocess: Hook | None = None, postprocess: Hook | None = None) -> None:
        self.serving = Serving()
        self.loads = 0
        self.hooks = preprocess, postprocess
        self.may_load = Event()
        self.may_load.set()
        self.serving.add_ready(load=self.load, settings=SCALED)
        self.version = self.served()

    def load(self, progress: Progress) -> CheckedModel:
        self.loads += 1
        assert self.may_load.wait(PATIENCE)
        model = RecordingModel()
        model.preprocess, model.postprocess = self.hooks
        return checked(model)

    def served(self) -> ModelVersion:
        version = self.serving.server.lifecycle.versions.get("m", "1")
        assert version is not None
        return version

    def want(self, count: int) -> None:
        """Have `count` instances be wanted."""
        assert self.version.autoscaler is not None
        self.version.autoscaler.begin_with(count)
        self.serving.loop.clock.advance(1)

    def coming(self) -> None:
        """Have an instance be on its way."""
        self.may_load.clear()
        self.want(2)
        self.serving.loop.run_until(lambda: self.loads == 2)
        assert (self.version.workers.wanted, self.version.workers.alive) == (2, 1)

    def scraped(self) -> dict[str, float]:
        """Return what the metrics say of instances."""
        lines = self.serving.server.metrics.render().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.startswith("batcher_instances")]
        return {name.partition("{")[0]: float(value) for name, _, value in pairs}


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.may_load.set()
    bench.serving.end()


def test_instances_are_counted_and_shown(bench: Bench) -> None:
    bench.coming()
    assert bench.scraped() == {"batcher_instances_wanted": 2, "batcher_instances_ready": 1}
    facts = facts_of(bench.version, bench.serving.server.metrics, 0.0)
    assert (facts.instances, facts.alive) == (2, 1)
    assert ("m/1", "instances wanted: 2, before 1") in bench.serving.progress
    bench.may_load.set()
    bench.serving.loop.run_until(lambda: bench.version.workers.alive == 2)
    assert bench.scraped() == {"batcher_instances_wanted": 2, "batcher_instances_ready": 2}
    assert bench.serving.values(bench.serving.infer(1, 2)) == [2, 4]
    bench.serving.loop.wait_for(bench.serving.server.lifecycle.forget(bench.version))
    assert bench.scraped() == {}


def test_a_model_is_unloaded_while_an_instance_comes(bench: Bench) -> None:
    bench.coming()
    answer = bench.serving.infer(1)
    unloaded = bench.serving.server.unload(bench.version)
    assert bench.serving.values(answer) == [2]
    bench.may_load.set()
    bench.serving.loop.wait_for(unloaded)
    bench.serving.loop.run_until(lambda: not bench.serving.server.lifecycle.alive)
    assert bench.version.state is ModelState.UNLOADED
    bench.serving.loop.clock.advance(5)
    assert bench.loads == 2


def test_what_takes_the_place_of_a_model_begins_with_as_many_instances(bench: Bench) -> None:
    bench.coming()
    bench.may_load.set()
    definition = ModelDefinition(model_spec(), "python", Path(), Path())
    replaced = bench.serving.server.replace(definition, SCALED, bench.load)
    assert bench.serving.loop.wait_for(replaced) is None
    before, bench.version = bench.version, bench.served()
    assert before is not bench.version
    assert bench.version.workers.alive == 1
    bench.serving.loop.clock.advance(1)
    bench.serving.loop.run_until(lambda: bench.version.workers.alive == 2)
    bench.serving.loop.run_until(lambda: before not in bench.serving.server.lifecycle.alive)
    assert bench.serving.values(bench.serving.infer(3)) == [6]


def test_a_server_that_drains_has_no_more_instances_come(bench: Bench) -> None:
    drained = bench.serving.server.drain()
    assert bench.serving.loop.wait_for(drained) is None
    bench.want(3)
    assert bench.loads == 1


def test_a_server_is_stopped_while_an_instance_comes(bench: Bench) -> None:
    bench.coming()
    bench.may_load.set()
    bench.serving.end()
    assert bench.version.state is ModelState.STOPPED
    assert bench.serving.loop.clock.getDelayedCalls() == []


def test_no_more_instances_come_of_a_model_whose_first_one_alone_takes_batches() -> None:
    kept: list[int] = []

    def preprocess(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        kept[:] = [len(inputs["x"])]
        return inputs

    def postprocess(outputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": outputs["y"] * kept[0]}

    bench = Bench(preprocess, postprocess)
    try:
        bench.want(3)
        assert (bench.version.workers.wanted, bench.loads) == (1, 1)
        assert bench.serving.values(bench.serving.infer(1, 2)) == [4, 8]
    finally:
        bench.serving.end()

"""Random graphs of steps in simulated time: with full queues in the middle, every request ends.

Each graph has models with queues of a few rows and workers that run a batch when the test says so.
Requests come at random, some with a deadline, some are cancelled, and some hold a row that a model
fails on. Whatever happens: each request ends once, with the values that the graph has or with an
error that the test knows a reason for, and nothing of it is left anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.batching.scheduler import BatchScheduler
from batcher.config.model_settings import ModelSettings
from batcher.config.pipelines.plan import Plan, plan_of
from batcher.config.pipelines.step_file import StepFile
from batcher.config.reading import Source
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.errors import DeadlineExceeded, ModelError, PredictedLate, QueueFull, TooLarge
from batcher.serving.assembly import build_scheduler
from batcher.serving.pipelines.counts import PipelineCounts
from batcher.serving.pipelines.fitting import fit
from batcher.serving.pipelines.graph import Graph
from batcher.serving.pipelines.stage import PipelineStage
from batcher.serving.servable import Servable
from batcher.workers.memory import MemoryWorker
from batcher.workers.pools import Pools
from tests.support.models import RecordingModel, checked, model_spec, tensor

FEW, MANY = 150, 10_000
X, Y = tensor("x", shape=()), tensor("y", shape=())
PIPELINE = ModelSettings(device="cpu", max_queue_rows=40)
REASONS = (QueueFull, TooLarge, DeadlineExceeded, PredictedLate, CancelledError, ModelError)


def poisoned(values: Array) -> Array:
    """Return which values the models fail on."""
    return np.asarray(values % 11 == 3)


class SmallModel(Servable):
    """A model with a short queue.

    Attributes:
        scheduler: its queue and policy.
        worker: runs a batch when the test says so.
    """

    def __init__(self, name: str, random: Random, clock: Clock) -> None:
        """Make a model `x * factor + offset`."""
        none: Any = None  # nothing here is large
        pools = Pools._make([none] * len(Pools._fields))
        spec = model_spec((X,), (Y,), name=name)
        super().__init__(spec, 4, 10.0, pools, clock.seconds)
        self.factor, self.offset = random.randint(1, 3), random.randint(-2, 2)
        model = RecordingModel(self.spec, self._predict)
        self.worker = MemoryWorker(checked(model), clock)
        settings = ModelSettings(
            device="cpu",
            max_batch_size=random.randint(1, 4),
            max_queue_rows=random.randint(1, 8),
            pipeline_depth=random.randint(1, 2),
        )
        metrics = ModelMetrics(name, "1")
        self.scheduler: BatchScheduler = build_scheduler(
            settings, self.spec, [self.worker], clock, metrics
        )
        self.worker.start(self.scheduler.deliver, lambda condition, reason: None)

    def _predict(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        if poisoned(inputs["x"]).any():
            raise ValueError("poison")
        return {"y": self.result_of(inputs["x"])}

    def result_of(self, values: Array) -> Array:
        """Return what the model makes of `values`."""
        return np.asarray(values * self.factor + self.offset, np.float32)

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Queue a request."""
        return self.scheduler.submit(request)

    def successor(self) -> Servable:
        """Return the model itself: nothing replaces it."""
        return self


class World:
    """One random graph with its models, and its requests."""

    def __init__(self, random: Random) -> None:
        """Make graph and models."""
        self.random, self.clock = random, Clock()
        names = [f"m{index}" for index in range(random.randint(1, 4))]
        self.models = {name: SmallModel(name, random, self.clock) for name in names}
        self.plan = self._plan(names)
        outputs = tuple(tensor(name, shape=()) for name in self.plan.outputs)
        spec = ModelSpec("p", "1", (X,), outputs, "pipeline")
        fitted = fit(spec, self.plan, lambda step: self.models[step.model].spec)
        finders: dict[str, Callable[[], Any]] = {
            step.name: partial(self.models.__getitem__, step.model) for step in self.plan.steps
        }
        pool: Any = None  # nothing here is large
        self.stage = PipelineStage(
            "p/1", PIPELINE, pool, self.clock.seconds, ModelMetrics("p", "1")
        )
        self.stage.graph = Graph(fitted, finders, {}, PipelineCounts())
        self.open: list[Deferred[InferenceResponse]] = []
        self.ended: dict[int, list[Any]] = {}
        self.values: dict[int, Array] = {}

    def _plan(self, names: list[str]) -> Plan:
        random, steps, known = self.random, [], ["x"]
        for index in range(random.randint(1, 7)):
            reference = random.choice(known)
            step = {"name": f"s{index}", "model": random.choice(names), "inputs": {"x": reference}}
            if random.random() < 0.5:
                step["when"] = f"{random.choice(known)} > {random.randint(-3, 12)}"
                step["else"] = {"y": random.choice([*known, 5])}
            steps.append(step)
            known.append(f"s{index}.y")
        used = str([(each["inputs"], each.get("when"), each.get("else")) for each in steps])
        outputs = {name.replace(".", "_"): name for name in known[1:] if name not in used}
        random.shuffle(steps)
        return plan_of([StepFile(**each) for each in steps], ["x"], outputs, Source({}, {}))

    def ask(self) -> None:
        """Send a request, or have it refused."""
        random, number = self.random, len(self.ended)
        values = np.array([random.randint(-20, 20) for _ in range(random.randint(1, 4))], "<f4")
        deadline = self.clock.seconds() + random.random() if random.random() < 0.2 else None
        self.values[number], self.ended[number] = values, []
        request = InferenceRequest("p", "1", {"x": values}, len(values), Parameters(deadline))
        try:
            answer = self.stage.infer(request, lambda request: Deferred())
        except (QueueFull, TooLarge) as err:
            self.ended[number].append(Failure(err))
            return
        answer.addBoth(self.ended[number].append)
        self.open.append(answer)

    def step(self) -> None:
        """Do something at random."""
        action = self.random.random()
        busy = [model.worker for model in self.models.values() if model.worker.batches]
        if action < 0.4:
            self.ask()
        elif action < 0.8 and busy:
            self.random.choice(busy).perform()
        elif action < 0.85 and self.open:
            self.random.choice(self.open).cancel()
        else:
            self.clock.advance(self.random.random() / 10)

    def finish(self) -> None:
        """Run all that can run, as long as there is something."""
        for _ in range(1000):
            busy = [model.worker for model in self.models.values() if model.worker.batches]
            for worker in busy:
                worker.perform()
            self.clock.advance(0.01)
            if not busy and not self.stage.rows:
                return
        raise AssertionError("requests wait for each other")

    def expected(self, values: Array) -> tuple[dict[str, Array], bool]:
        """Return the outputs for `values`, and whether a model gets a value that it fails on."""
        known, fails = {"x": values}, False
        for step in self.plan.steps:
            inputs, mask = known[step.inputs["x"]], np.ones(len(values), bool)
            if step.condition is not None:
                name, bound = step.condition.text.split(" > ")
                mask = known[name] > float(bound)
            fails = fails or bool(poisoned(inputs[mask]).any())
            other = step.otherwise.get("y", "x")
            instead = known[other] if isinstance(other, str) else np.full(len(values), 5, "<f4")
            made = self.models[step.model].result_of(inputs)
            known[f"{step.name}.y"] = np.where(mask, made, instead)
        return {name: known[reference] for name, reference in self.plan.outputs.items()}, fails

    def check(self) -> None:
        """Assert that every request has ended once, and rightly."""
        assert all(len(each) == 1 for each in self.ended.values())
        for number, (result,) in self.ended.items():
            outputs, fails = self.expected(self.values[number])
            if isinstance(result, Failure):
                assert result.check(*REASONS), result
                assert fails or not result.check(ModelError)
                continue
            assert not fails
            for name, array in outputs.items():
                assert np.array_equal(result.outputs[name], array), name
        assert (self.stage.rows, self.stage._requests, self.stage._nbytes) == (0, 0, 0)
        for model in self.models.values():
            assert (model.scheduler.queue_rows, model.scheduler.in_flight_rows) == (0, 0)


def lives(seed: int) -> int:
    """Run one random world; return how many of its requests were answered."""
    world = World(Random(seed))
    for _ in range(40):
        world.step()
    world.finish()
    world.check()
    return sum(isinstance(result, InferenceResponse) for (result,) in world.ended.values())


def test_every_request_ends_once_in_random_graphs_with_full_queues() -> None:
    answered = sum(map(lives, range(FEW)))

    assert answered > FEW  # not all of them may end with errors


@pytest.mark.long
def test_every_request_ends_once_in_ten_thousand_random_graphs() -> None:
    assert sum(map(lives, range(FEW, MANY + FEW))) > MANY

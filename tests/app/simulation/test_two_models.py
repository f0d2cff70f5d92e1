"""Two models on one device: `deferred` leaves much of the device free, and is hardly ever late."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np
import pytest
from twisted.python.failure import Failure

from batcher.app.simulation.costs import AffineCost, Noise
from batcher.app.simulation.devices import SimulatedDevice
from batcher.app.simulation.events import Events
from batcher.app.simulation.loop import Core, Loop
from batcher.batching.batch import Batch
from batcher.batching.scheduler import BatchScheduler
from batcher.batching.worker import Outcome
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, Parameters
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError
from batcher.serving.assembly import build_scheduler

COST, SIZE = AffineCost(4e-3, 0.25e-3), 32
CAPACITY = SIZE / COST.seconds(SIZE)
DEADLINE_S = 0.05
SECONDS = 4.0
MODELS = 2


class SharedDevice(SimulatedDevice):
    """A worker whose batches wait for those of the other models on the device."""

    def __init__(self, *arguments: Any, core: Core) -> None:
        super().__init__(*arguments)
        self._core = core

    def _begin(self, batch: Batch, waited: float) -> None:
        self.idle_since, self.last_begin = inf, self._events.now
        seconds = self.cost.seconds(batch.rows) * self._noise.factor()
        self.busy += seconds
        end = self._core.take(seconds)
        taken = end - self._events.now
        self._outcomes.append(Outcome([{}] * len(batch.parts), None, waited, taken))
        self._events.at(end, self._end, batch)


class Found(NamedTuple):
    """What came of a load.

    Attributes:
        busy: part of the time for which the device ran.
        in_time: part of the requests that were answered in time.
    """

    busy: float
    in_time: float


class Clients:
    """Sends requests to one model at random times, and counts those that are answered in time."""

    def __init__(self, events: Events, scheduler: BatchScheduler) -> None:
        self.in_time = 0
        self._events, self._scheduler = events, scheduler

    def send(self, _: None) -> None:
        sent = self._events.now
        request = InferenceRequest("m", "", {}, 1, Parameters(None, 0))
        try:
            answer = self._scheduler.submit(request)
        except BatcherError:
            return
        answer.addCallbacks(lambda _: self._count(sent), _is_refused)

    def _count(self, sent: float) -> None:
        self.in_time += self._events.now - sent <= DEADLINE_S


def _is_refused(failure: Failure) -> None:
    failure.trap(BatcherError)


def run(policy: str, load: float) -> Found:
    """Run two models that share a device, each with half of `load` in parts of its capacity."""
    events = Events()
    loop, core = Loop(events, Core(events)), Core(events)
    settings = ModelSettings(policy=policy, slo_ms=DEADLINE_S * 1e3, max_batch_size=SIZE)
    workers, clients = [], []
    requests = int(load * CAPACITY / MODELS * SECONDS)
    for number in range(MODELS):
        spec, noise = ModelSpec("m", str(number), (), ()), Noise(0.02, number)
        crossing = (events, COST, noise, lambda function, batch: loop.post(0.0, function, batch))
        worker = SharedDevice(*crossing, core=core)
        metrics = ModelMetrics(spec.name, spec.version)
        scheduler = build_scheduler(settings, spec, [worker], loop, metrics, loop.call_soon)
        worker.start(scheduler.deliver, lambda condition, reason: None)
        scheduler.loaded({rows: COST.seconds(rows) for rows in (1, 2, 4, 8, 16, 32)})
        workers.append(worker)
        clients.append(Clients(events, scheduler))
        times = np.random.default_rng(number).uniform(0.0, SECONDS, requests)
        for time in np.sort(times).tolist():
            events.at(time, clients[-1].send)
    events.run()
    in_time = sum(each.in_time for each in clients) / (requests * MODELS)
    return Found(sum(worker.busy for worker in workers) / SECONDS, in_time)


@pytest.mark.parametrize(("load", "most_busy"), [(0.2, 0.4), (0.5, 0.65), (0.8, 0.9)])
def test_two_models_that_defer_leave_the_device_free_and_are_in_time(
    load: float, most_busy: float
) -> None:
    at_once, deferred = run("slo", load), run("deferred", load)
    assert at_once.busy > 0.95, "each model sends whatever waits as soon as it can"
    assert deferred.busy < most_busy
    assert deferred.in_time >= 0.99

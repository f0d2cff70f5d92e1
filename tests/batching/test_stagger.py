"""The last free worker of several waits, so that workers take turns, and no other does."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from twisted.internet.task import Clock

from batcher.batching.admission import Admission
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.places import Places
from batcher.batching.stagger import LEAST_WAIT_S, Stagger
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.request import Parameters
from batcher.serving.assembly import build_scheduler
from tests.support.models import RecordingModel, checked
from tests.support.scheduling import FREE_SPEC, Answer, part, request
from tests.support.simulation import ROW, SimulatedDevice, ignore_changes

ONE_S = 4e-3
"""Seconds of a batch of one row."""


def seconds(rows: int, group: Hashable = ()) -> float:
    return ONE_S * (1 + (rows - 1) / 16)


class Workers:
    """Workers with batches, and what is known of batches of so many rows."""

    def __init__(self, count: int, mean_rows: float = 1.0, max_wait: float = 5e-3) -> None:
        self.places = Places(count)
        admission = Admission(CostModel(), 64, 100)
        admission.seed((size, seconds(size)) for size in (1, 2, 4, 8, 16, 32, 64))
        admission.mean_batch_rows = mean_rows
        self.stagger = Stagger(self.places, admission, max_wait)

    def begin(self, *times: float) -> Workers:
        for time in times:
            self.places.put(Batch([part()], "idle", time), time)
        return self

    def wait(self, now: float = 0.0) -> float:
        """Return the seconds from the latest beginning to the end of the wait, 0 for none."""
        until = self.stagger.until((), 64, now)
        return until - self.places.free_and_latest()[1] if until else 0.0


@pytest.mark.parametrize(("count", "share"), [(2, 1.0), (4, 1.2)])
def test_the_last_free_worker_waits_a_share_of_a_batch_after_the_latest_beginning(
    count: int, share: float
) -> None:
    workers = Workers(count).begin(*[-1e-3] * (count - 2), 0.0)
    assert workers.wait(1e-4) == pytest.approx(share * 0.8 * ONE_S / count)


def test_larger_batches_make_longer_waits_until_they_are_nearly_full() -> None:
    waits = [Workers(4, mean).begin(0.0, 0.0, 0.0).wait() for mean in (1, 8, 32, 56, 60)]
    assert waits[0] < waits[1] < waits[2] > waits[3] > waits[4] == 0


@pytest.mark.parametrize(
    "workers",
    [
        Workers(4).begin(0.0, 0.0),
        Workers(2),
        Workers(2, max_wait=0.0).begin(0.0),
        Workers(16, max_wait=LEAST_WAIT_S / 2).begin(*[0.0] * 15),
    ],
    ids=["another is free too", "none runs", "no waits are allowed", "too short for a timer"],
)
def test_no_worker_waits_where(workers: Workers) -> None:
    assert workers.wait() == 0


def test_of_many_workers_a_quarter_counts_as_the_last() -> None:
    assert Workers(16).begin(*[0.0] * 11).wait() == 0
    assert Workers(16).begin(*[0.0] * 12).wait() > 0


def test_a_wait_is_never_longer_than_is_allowed() -> None:
    assert Workers(2, max_wait=1e-3).begin(0.0).wait() == pytest.approx(1e-3)


def test_workers_that_are_lost_share_nothing() -> None:
    workers = Workers(4).begin(0.0)
    workers.places.set_alive(2, False)
    workers.places.set_alive(3, False)
    assert workers.wait() == pytest.approx(0.8 * ONE_S / 2)


def test_a_wait_counts_until_its_batch_is_sent() -> None:
    workers = Workers(2).begin(0.0)
    until = workers.stagger.until((), 64, 1e-3)
    assert workers.stagger.until((), 64, until) == until, "the time is over, and there was a wait"
    workers.stagger.forget()
    assert workers.stagger.until((), 64, until) == 0


def test_a_wait_is_over_when_no_worker_runs_a_batch_any_more() -> None:
    """A batch has taken less time than others, or has failed."""
    workers = Workers(2, mean_rows=16).begin(0.0)
    (batch,) = workers.places
    assert workers.stagger.until((), 64, 1e-3) > 1.5e-3
    workers.places.remove(batch, 1.5e-3)
    assert workers.stagger.until((), 64, 1.5e-3) == 1.5e-3


class Served:
    """A model with two copies on a clock, under policy eager."""

    def __init__(self, **settings: float) -> None:
        self.clock, self.metrics = Clock(), ModelMetrics("m", "1")
        self.devices = [
            SimulatedDevice(checked(RecordingModel(FREE_SPEC)), self.clock, seconds)
            for _ in range(2)
        ]
        own = ModelSettings(instances=2, **settings)
        self.scheduler = build_scheduler(own, FREE_SPEC, self.devices, self.clock, self.metrics)
        for device in self.devices:
            device.start(self.scheduler.deliver, ignore_changes)
        self.scheduler.loaded({rows: seconds(rows) for rows in (1, 2, 4, 8, 16, 32, 64)})

    def send(self, at: float, deadline: float | None = None) -> Answer:
        self.clock.advance(at - self.clock.seconds())
        answer = Answer(self.scheduler.submit(request(ROW, Parameters(deadline=deadline))))
        self.clock.advance(0)
        return answer

    def sizes(self, at: float) -> list[list[int]]:
        self.clock.advance(at - self.clock.seconds())
        self.scheduler.check_invariants()
        return [device.sizes for device in self.devices]


def test_requests_of_the_wait_share_the_batch_of_the_last_free_worker() -> None:
    served = Served()
    for at in (0.0, 5e-4, 1e-3):
        served.send(at)
    assert served.sizes(1.5e-3) == [[1], []]
    assert served.sizes(1.7e-3) == [[1], [2]]
    assert served.metrics.flushes["waited"] == 1
    assert served.metrics.flushes["idle"] == 1


@pytest.mark.parametrize(
    ("settings", "deadline"),
    [({"max_delay_ms": 0}, None), ({}, 8e-3)],
    ids=["waits are switched off", "a request would be late in a full batch"],
)
def test_the_last_free_worker_takes_a_request_at_once_where(
    settings: dict[str, float], deadline: float | None
) -> None:
    served = Served(**settings)
    served.send(0.0)
    served.send(5e-4, deadline)
    assert served.sizes(5e-4) == [[1], [1]]
    assert served.metrics.flushes["waited"] == 0


def test_a_request_behind_a_wait_that_its_only_request_has_left_has_not_waited() -> None:
    served = Served()
    served.send(0.0)
    served.send(1e-3).deferred.cancel()
    served.clock.advance(1.0)
    served.send(2.0)
    assert served.sizes(2.0) == [[1, 1], []]
    assert served.metrics.flushes["waited"] == 0

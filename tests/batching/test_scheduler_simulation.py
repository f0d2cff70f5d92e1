"""How large batches become, and how many rows/s are run: a fixed-cost model, simulated time."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest
from twisted.internet.task import Clock

from batcher.batching.admission import AdmitAll
from batcher.batching.options import SchedulerOptions
from batcher.batching.policies.eager import Eager
from batcher.batching.policies.policy import Policy
from batcher.batching.queue import BatchQueue
from batcher.batching.scheduler import BatchScheduler
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceResponse
from tests.support.models import RecordingModel, checked, rows
from tests.support.scheduling import request
from tests.support.simulation import SimulatedDevice, advance_to_next, ignore_changes

ROW = rows(1)


def seconds(batch_rows: int) -> float:
    """Return what a batch of the fixed-cost model takes."""
    return 2e-3 + 0.05e-3 * batch_rows


class ClosedLoop:
    """Clients that each send their next request when they have the answer to the last.

    Attributes:
        answered: the times of all answers.
    """

    def __init__(
        self, clients: int, policy: Policy, *, crossing: float = 0.0, places: int = 2, seed: int = 1
    ) -> None:
        """Let `clients` begin at random within the first 5 milliseconds."""
        self.clock = Clock()
        model = checked(RecordingModel())
        model.model.predict = lambda inputs: {"y": inputs["x"]}  # nothing is recorded of a long run
        self.device = SimulatedDevice(model, self.clock, seconds, crossing)
        self.metrics = ModelMetrics("m", "1")
        queue = BatchQueue(100_000, 1 << 30)
        options = SchedulerOptions(pipeline_depth=places)
        self.scheduler = BatchScheduler(
            queue,
            policy,
            [self.device],
            self.clock,
            self.metrics,
            admission=AdmitAll(policy.max_batch_size),
            options=options,
        )
        self.device.start(self.scheduler.deliver, ignore_changes)
        self.answered: list[float] = []
        random = Random(seed)
        for _ in range(clients):
            self.clock.callLater(random.uniform(0, 5e-3), self._send)

    def run(self, until: float) -> None:
        """Let the time pass `until`."""
        while advance_to_next(self.clock) < until:
            self.scheduler.check_invariants()

    def rate(self, since: float, until: float) -> float:
        """Return rows/s between two times."""
        return sum(since <= time < until for time in self.answered) / (until - since)

    def _send(self) -> None:
        self.scheduler.submit(request(ROW)).addCallback(self._answered)

    def _answered(self, response: InferenceResponse) -> None:
        self.answered.append(self.clock.seconds())
        self._send()


@pytest.mark.parametrize("seed", range(3), ids="seed {}".format)
@pytest.mark.parametrize(("clients", "at_least"), [(16, 3300), (64, 8800)], ids="{} clients".format)
def test_closed_loop_batches_are_half_the_clients_and_never_degenerate(
    clients: int, at_least: int, seed: int
) -> None:
    loop = ClosedLoop(clients, Eager(64), seed=seed)
    loop.run(until=1.0)
    assert loop.rate(0.1, 1.0) >= at_least
    sizes = loop.device.sizes[10:]
    assert mean(sizes) == pytest.approx(clients / 2, rel=0.05)
    windows = [mean(sizes[index : index + 20]) for index in range(0, len(sizes) - 20, 20)]
    assert min(windows) >= 0.45 * clients, "not for a while either"
    assert loop.scheduler.pending == clients


def test_the_device_is_never_left_idle_in_a_closed_loop() -> None:
    loop = ClosedLoop(16, Eager(64))
    loop.run(until=1.0)
    assert loop.device.idle < 0.01, "but for the first turns"


@pytest.mark.parametrize(
    ("places", "idle"), [(2, False), (1, True)], ids=["two places", "one place"]
)
def test_under_saturation_full_batches_in_the_second_place_hide_the_way_back_to_the_loop(
    places: int, idle: bool
) -> None:
    loop = ClosedLoop(300, Eager(64), crossing=0.5e-3, places=places)
    loop.run(until=0.1)
    before = loop.device.idle
    loop.run(until=1.0)
    assert (loop.device.idle > before) is idle
    assert set(loop.device.sizes[5:]) == {64}
    full_speed = 64 / seconds(64)
    assert (loop.rate(0.1, 1.0) > 0.99 * full_speed) is not idle


def test_batches_that_could_grow_are_not_bound_early_even_when_the_way_back_is_slow() -> None:
    loop = ClosedLoop(16, Eager(64), crossing=0.2e-3)
    loop.run(until=1.0)
    assert mean(loop.device.sizes[10:]) >= 0.45 * 16
    period = 2 * (seconds(8) + 0.2e-3)
    assert loop.rate(0.1, 1.0) >= 0.99 * 16 / period


def test_one_client_alone_waits_for_its_own_batch_only() -> None:
    loop = ClosedLoop(1, Eager(64))
    loop.run(until=1.0)
    assert set(loop.device.sizes) == {1}
    assert loop.rate(0.1, 1.0) == pytest.approx(1 / seconds(1), rel=0.01)


def test_what_is_counted_agrees_with_what_was_run() -> None:
    loop = ClosedLoop(64, Eager(16))
    loop.run(until=0.2)
    metrics = loop.metrics
    assert metrics.batch_size.total == len(loop.answered) + loop.scheduler.in_flight_rows
    assert metrics.queue_wait.count == len(loop.answered)
    assert sum(metrics.flushes.values()) == metrics.batch_size.count
    assert set(metrics.flushes) <= {"full", "idle"}

"""Above capacity, in simulated time.

What is answered is answered in time, and that is as much as the device can do.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from twisted.internet.task import Clock

from batcher.batching.admission import Admission, AdmitAll
from batcher.batching.cost import CostModel
from batcher.batching.options import SchedulerOptions
from batcher.batching.policies.eager import Eager
from batcher.batching.queue import BatchQueue
from batcher.batching.scheduler import BatchScheduler
from batcher.core.counters import ModelMetrics
from batcher.core.request import Parameters
from batcher.errors import BatcherError, DeadlineExceeded, PredictedLate
from tests.support.models import RecordingModel, checked, rows
from tests.support.scheduling import request
from tests.support.simulation import SimulatedDevice, advance_to_next, ignore_changes

ROW = rows(1)
LARGEST = 32
DEADLINE = 0.04
SECONDS = 10.0


def seconds(batch_rows: int) -> float:
    """Return what a batch takes."""
    return 10e-3 + 0.3e-3 * batch_rows


CAPACITY = LARGEST / seconds(LARGEST)


class OpenLoop:
    """Requests that come by chance, whatever becomes of those before them.

    Attributes:
        good: requests that were answered by their deadline.
        late: requests that were answered behind it.
        ended: how many ended in each other way.
    """

    def __init__(
        self, rate: float, predicts: bool, *, slower: float = 1.0, way: float = 0.0, depth: int = 2
    ) -> None:
        """Send `rate` requests/s, each `way` seconds on its way in the mean, as is its answer.

        From half of the time on, batches take `slower` times as long.
        """
        self.clock = Clock()
        model = checked(RecordingModel())
        model.model.predict = lambda inputs: {"y": inputs["x"]}  # nothing is recorded of a long run
        self._slower = slower
        self._stall = 0.0
        self._way = way
        self.device = SimulatedDevice(model, self.clock, self._seconds, crossing=way / 4)
        queue = BatchQueue(100_000, 1 << 30)
        self.scheduler = BatchScheduler(
            queue,
            Eager(LARGEST),
            [self.device],
            self.clock,
            ModelMetrics("m", "1"),
            options=SchedulerOptions(pipeline_depth=depth),
            admission=Admission(CostModel(), LARGEST, queue.max_rows, jitter=lambda: 0.5)
            if predicts
            else AdmitAll(LARGEST),
        )
        self.device.start(self.scheduler.deliver, ignore_changes)
        self.good = self.late = self.sent = 0
        self.ended: dict[type, int] = {}
        self._random, self._rate = Random(1), rate
        self._send()

    def run(self) -> float:
        """Let the time pass; return goodput as a share of capacity, the first second left out."""
        while advance_to_next(self.clock) < 1.0:
            pass
        before = self.good
        while advance_to_next(self.clock) < SECONDS:
            self.scheduler.check_invariants()
        return (self.good - before) / (SECONDS - 1.0) / CAPACITY

    def slow_down_to(self, rate: float) -> None:
        """Send `rate` requests/s from now on."""
        self._rate = rate

    def stall_next(self, stall: float) -> None:
        """Let the next batch take `stall` seconds more."""
        self._stall = stall

    def _seconds(self, batch_rows: int) -> float:
        stall, self._stall = self._stall, 0.0
        return stall + seconds(batch_rows) * (
            self._slower if self.clock.seconds() > SECONDS / 2 else 1.0
        )

    def _send(self) -> None:
        now = self.clock.seconds()
        self.sent += 1
        self._travel(self._arrive, now)
        if now < SECONDS:
            self.clock.callLater(self._random.expovariate(self._rate), self._send)

    def _travel(self, arrive: Callable[[float], None], sent: float) -> None:
        if self._way:
            self.clock.callLater(self._random.expovariate(1 / self._way), arrive, sent)
        else:
            arrive(sent)

    def _arrive(self, sent: float) -> None:
        try:
            answer = self.scheduler.submit(
                request(ROW, Parameters(deadline=self.clock.seconds() + DEADLINE))
            )
        except BatcherError as err:
            self._count(type(err))
        else:
            answer.addCallbacks(
                lambda _: self._travel(self._answered, sent),
                lambda failure: self._count(failure.type),
            )

    def _answered(self, sent: float) -> None:
        if self.clock.seconds() <= sent + DEADLINE + 1e-9:
            self.good += 1
        else:
            self.late += 1

    def _count(self, kind: type) -> None:
        self.ended[kind] = self.ended.get(kind, 0) + 1


@pytest.mark.parametrize(
    ("offered", "least"),
    [(0.5, 0.49), (0.8, 0.78), (1.0, 0.88), (1.3, 0.95), (2.0, 0.95), (4.0, 0.95)],
)
def test_goodput_does_not_fall_with_what_is_offered(offered: float, least: float) -> None:
    load = OpenLoop(offered * CAPACITY, predicts=True)
    assert load.run() >= least
    assert load.late < 0.005 * load.sent
    assert set(load.ended) <= {PredictedLate, DeadlineExceeded}
    assert load.ended.get(DeadlineExceeded, 0) < 0.01 * load.sent, (
        "who is refused is told so in time"
    )


@pytest.mark.parametrize(
    ("offered", "least"), [(0.8, 0.78), (1.0, 0.9), (1.3, 0.97), (2.0, 0.97), (4.0, 0.97)]
)
def test_what_no_prediction_sees_makes_few_late_where_others_have_more_time(
    offered: float, least: float
) -> None:
    load = OpenLoop(offered * CAPACITY, predicts=True, way=0.4e-3)
    assert load.run() >= least
    assert load.late < 0.015 * load.sent


def test_stalls_make_hardly_any_late_where_far_more_come_than_fit() -> None:
    load = OpenLoop(4.0 * CAPACITY, predicts=True, way=1.5e-3)
    assert load.run() >= 0.97
    assert load.late < 0.003 * load.sent


def test_after_a_flood_all_are_taken_that_can_be_answered() -> None:
    load = OpenLoop(4.0 * CAPACITY, predicts=True)
    while advance_to_next(load.clock) < SECONDS / 2:
        pass
    assert load.scheduler.admission.reserve > 0.4 * seconds(LARGEST)
    load.slow_down_to(1.0 * CAPACITY)
    before = load.good
    while advance_to_next(load.clock) < SECONDS:
        pass
    assert (load.good - before) / (SECONDS / 2) / CAPACITY >= 0.88


def test_after_a_batch_that_took_far_too_long_others_run_at_once() -> None:
    load = OpenLoop(4.0 * CAPACITY, predicts=True, depth=1)
    while advance_to_next(load.clock) < SECONDS / 2:
        pass
    load.stall_next(0.1)
    while advance_to_next(load.clock) < SECONDS / 2 + 0.4:
        pass
    assert load.device.sizes[-10:] == [LARGEST] * 10


def test_dropping_only_what_has_expired_falls_far_behind() -> None:
    assert OpenLoop(1.3 * CAPACITY, predicts=False).run() < 0.5


def test_a_model_that_becomes_slower_is_learnt_anew() -> None:
    load = OpenLoop(1.3 * CAPACITY, predicts=True, slower=1.5)
    assert load.run() >= 0.65, (
        "beyond the change a full batch takes 29 of the 40 ms, and only smaller ones make it"
    )
    assert load.late < 0.02 * load.sent


def test_every_request_ends_exactly_once() -> None:
    load = OpenLoop(2 * CAPACITY, predicts=True)
    load.run()
    load.scheduler.drain()
    while load.clock.getDelayedCalls():
        advance_to_next(load.clock)
    assert load.good + load.late + sum(load.ended.values()) == load.sent

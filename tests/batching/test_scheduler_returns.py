"""What a free worker does while it waits for clients that return: simulated clients and time."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from batcher.batching.scheduler import BatchScheduler
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceResponse, Parameters
from batcher.serving.assembly import build_scheduler
from tests.support.models import RecordingModel, checked
from tests.support.scheduling import FREE_SPEC, Answer, request
from tests.support.simulation import ROW, SimulatedDevice, advance_to_next, ignore_changes

CLIENTS = 16


class Served:
    """Clients that send the next request soon after each answer, to a model on a clock.

    A batch takes `one` seconds, however many rows it has. The last of the clients is back after
    0.3 times that.
    """

    def __init__(self, one: float, **settings: float) -> None:
        self.one = one
        self.clock, self.metrics = Clock(), ModelMetrics("m", "1")
        model = checked(RecordingModel(FREE_SPEC))
        model.model.predict = lambda inputs: {"y": inputs["x"]}  # nothing is recorded of a long run
        device = SimulatedDevice(model, self.clock, self._seconds)
        own = ModelSettings(**settings)
        self.scheduler: BatchScheduler = build_scheduler(
            own, FREE_SPEC, [device], self.clock, self.metrics
        )
        device.start(self.scheduler.deliver, ignore_changes)
        self.scheduler.loaded(dict.fromkeys((1, 2, 4, 8, 16, 32, 64), one))
        self.waiting: set[Deferred[InferenceResponse]] = set()
        self.sending = True
        for number in range(CLIENTS):
            self.clock.callLater(number * one / CLIENTS, self._send, number)

    @property
    def waits(self) -> bool:
        """Whether some clients are back, and the others are waited for."""
        scheduler = self.scheduler
        return scheduler.returns.rows > 0 < scheduler.queue_rows and not scheduler.in_flight_rows

    def run_until_it_waits(self) -> float:
        """Let the time pass until the worker has learnt to wait; return until when it waits."""
        end = 400 * self.one
        while advance_to_next(self.clock) < end or not self.waits:
            self.scheduler.check_invariants()
        return self.scheduler.returns.until

    def stop(self) -> None:
        """Let nobody send any more: neither those that think, nor those that wait."""
        self.sending = False
        for call in list(self.clock.getDelayedCalls()):
            if call.func == self._send:
                call.cancel()

    def submit(self, deadline: float | None = None) -> Answer:
        """Send a request of somebody who has sent none before."""
        return Answer(self.scheduler.submit(request(ROW, Parameters(deadline))))

    def _seconds(self, rows: int, group: Hashable = ()) -> float:
        return self.one

    def _send(self, number: int) -> None:
        deferred = self.scheduler.submit(request(ROW))
        self.waiting.add(deferred)

        def ended(_: object) -> None:
            self.waiting.discard(deferred)
            if self.sending:
                self.clock.callLater(0.3 * self.one * (number + 1) / CLIENTS, self._send, number)

        deferred.addErrback(lambda failure: failure.trap(CancelledError)).addCallback(ended)


def test_a_request_behind_a_wait_that_all_have_left_has_not_waited() -> None:
    served = Served(2e-3)
    until = served.run_until_it_waits()
    served.stop()
    for deferred in list(served.waiting):
        deferred.cancel()
    served.clock.advance(until - served.clock.seconds() + 10 * served.one)
    served.scheduler.check_invariants()
    before, learnt = served.metrics.flushes["waited"], served.scheduler.returns.wait
    answer = served.submit()
    served.clock.advance(0)
    assert served.scheduler.in_flight_rows == 1
    served.clock.advance(served.one)
    assert answer.response
    assert served.metrics.flushes["waited"] == before
    assert served.scheduler.returns.wait == learnt


def test_a_slow_model_does_not_wait_until_a_request_is_late() -> None:
    """A second after a batch its time counts as unknown to those who refuse requests."""
    served = Served(4.0, max_delay_ms=60_000, timeout_ms=8e7)
    until = served.run_until_it_waits()
    served.stop()
    served.clock.rightNow = until - 1e-3
    deadline = until + 0.5 * served.one
    served.submit(deadline)
    served.clock.advance(0)
    assert served.scheduler.in_flight_rows, "it could not be answered in time after the wait"


@pytest.mark.parametrize("drained", [True, False])
def test_a_wait_ends_with_its_bound_or_with_a_drain(drained: bool) -> None:
    served = Served(2e-3)
    until = served.run_until_it_waits()
    ended = served.clock.seconds() + 2 * served.one
    assert until <= ended
    served.stop()
    served.clock.advance(0)
    assert served.waits
    if drained:
        served.scheduler.drain()
    else:
        served.clock.advance(until - served.clock.seconds())
    assert served.scheduler.in_flight_rows
    assert not served.waits

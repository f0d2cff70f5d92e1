"""One run: the server's own scheduler, queue, admission and policy, on simulated time and devices.

    sender --> clients' core --> loop --> BatchScheduler.submit --> Policy --> device
                                                                                 |
    record <-- clients' core <-- loop <-- Deferreds fire <-- BatchScheduler.deliver

Requests have no tensors, since a batch costs what the cost model says. All else is as in the
server: `build_scheduler` makes the scheduler from the settings, and the scheduler learns from
warm-up what the sizes 1, 2, 4, ... up to the largest batch cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from math import inf

from twisted.python.failure import Failure

from batcher.app.simulation.candidates import Candidate
from batcher.app.simulation.clients import Client, Surroundings, senders
from batcher.app.simulation.comparisons.expired_only import ExpiredOnly
from batcher.app.simulation.comparisons.facts import Facts
from batcher.app.simulation.costs import BatchCost, Noise
from batcher.app.simulation.devices import Cross, SimulatedDevice, Watch
from batcher.app.simulation.events import Events
from batcher.app.simulation.loads import Arrival, text_of
from batcher.app.simulation.loop import Core, Loop
from batcher.app.simulation.record import ANSWERED, DROPPED, REFUSED, Moment, Record, moment
from batcher.app.simulation.result import About, Result
from batcher.app.simulation.scenario import Scenario
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.scheduler import BatchScheduler
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError, ConfigError
from batcher.serving.assembly import build_scheduler

SPEC = ModelSpec("simulated", "1", (), ())

Sent = tuple[int, int, float | None, int, Client | None]
"""A request on its way: its number, rows, seconds until its deadline, level and client."""


def simulate(scenario: Scenario, candidate: Candidate) -> Result:
    """Return what `candidate` does in `scenario`."""
    run = Run(scenario, candidate)
    run.run()
    load, capacity = text_of(scenario.load), scenario.capacity
    about = About(load, candidate.name, candidate.drop, capacity, scenario.devices)
    return run.record.result(about)


class Run:
    """One run.

    Attributes:
        record: what became of the requests.
        scheduler: the server's scheduler.
        metrics: the counters of the scheduler.
    """

    def __init__(self, scenario: Scenario, candidate: Candidate) -> None:
        """Build everything; nothing is sent yet."""
        self.record, self.metrics = Record(), ModelMetrics(SPEC.name, SPEC.version)
        self._events = events = Events()
        self._core = core = Core(events)
        self._client_core = core if scenario.cores == 1 else Core(events)
        self._paces = Noise(scenario.loop_noise, scenario.seed)
        self._loop = Loop(events, core)
        self._half, self._client_half = scenario.loop_cost / 2, scenario.client_cost / 2
        self._devices = _devices(scenario, events, self._come_back)
        settings = scenario.settings_of(candidate)
        self.scheduler = self._scheduler(scenario, candidate, settings)
        self._bulk_level = settings.bulk_level
        self._binds_early = candidate.binds_early
        self._has_deadlines = candidate.drop != "none"
        self._scenario = scenario
        self._left = self._to_submit = scenario.count
        self._warmup = int(scenario.count * scenario.warmup)
        self._rows, self._allowed, self._level = _traits(scenario)
        self._requests: dict[tuple[int, int], InferenceRequest] = {}

    def run(self) -> None:
        """Send all requests, and wait for their ends."""
        scenario = self._scenario
        around = Surroundings(
            self._events,
            self._send,
            capacity=scenario.capacity / scenario.rows.mean,
            stagger=scenario.cost.seconds(1),
            seed=scenario.seed,
        )
        for sender in senders(scenario.load, around):
            sender.begin()
        for time, cost in scenario.later_costs:
            self._events.at(time, self._change_cost, cost)
        self._events.run()
        if self._left:
            # all loads have ended before the last request
            self.record.end_window(self._moment(self.record.last_sent))

    def _scheduler(
        self, scenario: Scenario, candidate: Candidate, settings: ModelSettings
    ) -> BatchScheduler:
        size, seconds = settings.max_batch_size, scenario.cost.seconds
        make = candidate.make
        scheduler = build_scheduler(
            settings,
            SPEC,
            self._devices,
            self._loop,
            self.metrics,
            self._loop.call_soon,
            policy=make(Facts(size, Watch(self._devices))) if make else None,
            admission=_expired_only(settings) if candidate.drop == "expired" else None,
        )
        for device in self._devices:
            device.start(scheduler.deliver, lambda condition, reason: None)
        sizes = [1 << power for power in range((size - 1).bit_length())] + [size]
        scheduler.loaded({rows: seconds(rows) for rows in sizes})
        return scheduler

    def _come_back(self, function: Callable[[Batch], None], batch: Batch) -> None:
        """Have the loop take `batch` back, and work at another pace from now on."""
        self._core.pace = self._client_core.pace = self._paces.factor()
        self._loop.post(0.0, function, batch)

    def _change_cost(self, cost: BatchCost) -> None:
        for device in self._devices:
            device.cost = cost

    def _moment(self, time: float) -> Moment:
        return moment(time, self._devices, self.metrics)

    def _send(self, client: Client | None, arrival: Arrival | None) -> bool:
        """Send a request; return whether more are to come."""
        if not self._left:
            return False
        if len(self.record) == self._warmup:
            self.record.begin_window(self._moment(self._events.now))
        self._left -= 1
        rows, allowed, level = self._traits_of(arrival)
        number = self.record.send(self._events.now, rows, allowed, level)
        sent = number, rows, allowed, level, client
        if self._client_half:
            self._events.at(self._client_core.take(self._client_half), self._post, sent)
        else:
            self._loop.post(self._half, self._submit, sent)
        if not self._left:
            self.record.end_window(self._moment(self._events.now))
        return self._left > 0

    def _traits_of(self, arrival: Arrival | None) -> tuple[int, float | None, int]:
        """Return rows, seconds until the deadline, and level of the next request."""
        rows, allowed, level = next(self._rows), next(self._allowed), next(self._level)
        if arrival is None:
            return rows, allowed, level
        own = arrival.allowed
        return arrival.rows or rows, allowed if own is None else own, arrival.level or level

    def _post(self, sent: Sent) -> None:
        self._loop.post(self._half, self._submit, sent)

    def _submit(self, sent: Sent) -> None:
        self._to_submit -= 1
        self._hand_in(sent)
        if self._binds_early:
            # the scheduler does not ask while all workers are busy; this one has to be asked
            self.scheduler.set_alive(0, True)
        if not self._to_submit:
            # a policy without a timer would wait for rows that never come
            self.scheduler.drain()

    def _hand_in(self, sent: Sent) -> None:
        _, rows, allowed, level, _ = sent
        # the deadline counts from now: the server knows when the request was read, not when sent
        request = self._request(rows, allowed, level)
        try:
            deferred = self.scheduler.submit(request)
        except BatcherError:
            self._end(sent, REFUSED)
            return
        deferred.addCallbacks(
            self._answered, self._failed, callbackArgs=(sent,), errbackArgs=(sent,)
        )

    def _request(self, rows: int, allowed: float | None, level: int) -> InferenceRequest:
        if level > self._bulk_level:
            raise ConfigError(
                f"level: expected 1 to {self._bulk_level}, as level_weights has them, the last for "
                f"bulk; got {level}"
            )
        if self._has_deadlines and allowed is not None:
            deadline = self._events.now + allowed
            return InferenceRequest(SPEC.name, "", {}, rows, Parameters(deadline, level))
        request = self._requests.get((rows, level))
        if request is None:
            own = None if self._has_deadlines else inf
            request = InferenceRequest(SPEC.name, "", {}, rows, Parameters(own, level))
            self._requests[rows, level] = request
        return request

    def _answered(self, response: InferenceResponse, sent: Sent) -> None:
        self._end(sent, ANSWERED)

    def _failed(self, failure: Failure, sent: Sent) -> None:
        failure.trap(BatcherError)
        self._end(sent, DROPPED)

    def _end(self, sent: Sent, fate: int) -> None:
        """Write the answer to a request, which the client has some time later."""
        time = self._loop.spend(self._half) if self._half else self._events.now
        if self._client_half:
            self._events.at(time, self._receive, (sent, fate))
        else:
            self._note(sent, fate, time)

    def _receive(self, answer: tuple[Sent, int]) -> None:
        self._note(*answer, self._client_core.take(self._client_half))

    def _note(self, sent: Sent, fate: int, time: float) -> None:
        number, _, _, _, client = sent
        self.record.end(number, time, fate)
        if client is not None:
            client.again(time, fate != ANSWERED)


def _expired_only(settings: ModelSettings) -> ExpiredOnly:
    return ExpiredOnly(CostModel(), settings.max_batch_size, settings.max_queue_rows)


def _devices(scenario: Scenario, events: Events, cross: Cross) -> list[SimulatedDevice]:
    return [
        SimulatedDevice(
            events,
            scenario.cost,
            Noise(scenario.noise, scenario.seed + number),
            cross,
        )
        for number in range(scenario.devices)
    ]


def _traits(
    scenario: Scenario,
) -> tuple[Iterator[int], Iterator[float | None], Iterator[int]]:
    """Return rows, seconds until the deadline, and level of one request after the other."""
    rows, deadlines, levels = (scenario.random(stream) for stream in range(3))
    allowed = scenario.deadline
    return (
        scenario.rows.whole(rows),
        repeat(None) if allowed is None else allowed.values(deadlines),
        repeat(0) if scenario.level is None else scenario.level.whole(levels),
    )

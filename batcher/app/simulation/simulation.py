"""One run: the server's own scheduler, queue, admission and policy, on simulated time and devices.

    sender --> clients' core --> loop --> BatchScheduler.submit --> Policy --> device
                                                                                 |
    record <-- clients' core <-- loop <-- Deferreds fire <-- BatchScheduler.deliver

Requests have no data, since a batch costs what the cost model says, but their rows may have lengths
(`ragged`). All else is as in the server: `build_scheduler` makes the scheduler from the settings,
with the cuts and the cost model of padded rows where rows have lengths; and the scheduler learns
from warm-up what the sizes 1, 2, 4, ... up to the largest batch cost.
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
from batcher.app.simulation.ragged import NAME, PLAIN, RequestInputs, lengths_of
from batcher.app.simulation.record import ANSWERED, DROPPED, REFUSED, Moment, Record, moment
from batcher.app.simulation.result import About, Result
from batcher.app.simulation.scenario import Scenario
from batcher.batching.batch import Batch
from batcher.batching.cost import NO_TIMINGS, CostModel, LengthTimings
from batcher.batching.scheduler import BatchScheduler
from batcher.config.model_settings import ModelSettings
from batcher.core.counters import ModelMetrics
from batcher.core.padding import Lengths
from batcher.core.request import InferenceRequest, InferenceResponse, Parameters
from batcher.errors import BatcherError, ConfigError
from batcher.serving.assembly import build_scheduler

Traits = tuple[int, float | None, int, Lengths]
"""Rows, seconds until the deadline, level and lengths of a request."""

Sent = tuple[int, Traits, Client | None]
"""A request on its way: its number, traits and client."""


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
        self.record, self.metrics = Record(), ModelMetrics(NAME, PLAIN.version)
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
        self._traits = _traits(scenario)
        self._inputs = RequestInputs(scenario.ragged)
        self._requests: dict[tuple[int, int], InferenceRequest] = {}

    def run(self) -> None:
        """Send all requests, and wait for their ends."""
        scenario = self._scenario
        around = Surroundings(
            self._events,
            self._send,
            capacity=scenario.capacity / scenario.rows.mean,
            stagger=scenario.seconds(1),
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
        size, make = settings.max_batch_size, candidate.make
        scheduler = build_scheduler(
            settings,
            PLAIN if scenario.ragged is None else scenario.ragged.spec(),
            self._devices,
            self._loop,
            self.metrics,
            self._loop.call_soon,
            policy=make(Facts(size, Watch(self._devices))) if make else None,
            admission=_expired_only(settings) if candidate.drop == "expired" else None,
        )
        for device in self._devices:
            device.start(scheduler.deliver, lambda condition, reason: None)
        scheduler.loaded(*_warmed_up(scenario, settings))
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
        traits = rows, allowed, level, _ = self._traits_of(arrival)
        number = self.record.send(self._events.now, rows, allowed, level)
        sent = number, traits, client
        if self._client_half:
            self._events.at(self._client_core.take(self._client_half), self._post, sent)
        else:
            self._loop.post(self._half, self._submit, sent)
        if not self._left:
            self.record.end_window(self._moment(self._events.now))
        return self._left > 0

    def _traits_of(self, arrival: Arrival | None) -> Traits:
        """Return the traits of the next request."""
        traits = rows, allowed, level, lengths = next(self._traits)
        if arrival is None:
            return traits
        allowed = allowed if arrival.allowed is None else arrival.allowed
        own = _own_lengths(arrival.lengths, lengths)
        return arrival.rows or rows, allowed, arrival.level or level, own

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
        # the deadline counts from now: the server knows when the request was read, not when sent
        request = self._request(*sent[1])
        try:
            deferred = self.scheduler.submit(request)
        except BatcherError:
            self._end(sent, REFUSED)
            return
        deferred.addCallbacks(
            self._answered, self._failed, callbackArgs=(sent,), errbackArgs=(sent,)
        )

    def _request(
        self, rows: int, allowed: float | None, level: int, lengths: Lengths
    ) -> InferenceRequest:
        if level > self._bulk_level:
            raise ConfigError(
                f"level: expected 1 to {self._bulk_level}, as level_weights has them, the last for "
                f"bulk; got {level}"
            )
        inputs = self._inputs.of(rows, lengths)
        if self._has_deadlines and allowed is not None:
            deadline = self._events.now + allowed
            return InferenceRequest(NAME, "", inputs, rows, Parameters(deadline, level))
        request = None if lengths else self._requests.get((rows, level))
        if request is None:
            own = None if self._has_deadlines else inf
            request = InferenceRequest(NAME, "", inputs, rows, Parameters(own, level))
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
        number, _, client = sent
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


def _traits(scenario: Scenario) -> Iterator[Traits]:
    """Iterate over the traits of one request after the other."""
    rows, deadlines, levels, lengths = (scenario.random(stream) for stream in range(4))
    allowed = scenario.deadline
    return zip(
        scenario.rows.whole(rows),
        repeat(None) if allowed is None else allowed.values(deadlines),
        repeat(0) if scenario.level is None else scenario.level.whole(levels),
        lengths_of(scenario.ragged, lengths),
        strict=True,
    )


def _own_lengths(own: Lengths, drawn: Lengths) -> Lengths:
    """Return the lengths of a request of a trace that says its `own`, or says none.

    Raises:
        ConfigError: there are more or fewer than rows have.
    """
    if not own or not drawn:
        return drawn
    if len(own) != len(drawn):
        raise ConfigError(
            f"trace: expected {len(drawn)} lengths in each line, as --length has; got {len(own)}"
        )
    return own


def _warmed_up(
    scenario: Scenario, settings: ModelSettings
) -> tuple[dict[int, float], None, int, LengthTimings]:
    """Return what warm-up shows under `settings`, as `BatchScheduler.loaded` has it."""
    size, most = settings.max_batch_size, settings.max_batch_elements
    sizes = [1 << power for power in range((size - 1).bit_length())] + [size]
    seconds, ragged = scenario.cost.seconds, scenario.ragged
    if ragged is None:
        return {rows: seconds(rows) for rows in sizes}, None, 0, NO_TIMINGS
    own = ragged.warmup_elements
    ran = [
        (rows, each)
        for each in own
        for rows in sizes
        if rows == 1 or most is None or rows * each <= most
    ]
    timings = {(rows, each): seconds(rows, each) for rows, each in ran}
    return {rows: timings[rows, own[0]] for rows, each in ran if each == own[0]}, None, 0, timings

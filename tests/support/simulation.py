"""A device and its clients in simulated time: no thread, no waiting, an hour in a moment."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from batcher.batching.admission import Admission
from batcher.batching.batch import Batch
from batcher.batching.cost import CostModel
from batcher.batching.policies.policy import Policy
from batcher.batching.queue import BatchQueue
from batcher.batching.scheduler import BatchScheduler
from batcher.batching.worker import Condition, ConditionListener, Deliver
from batcher.core.counters import ModelMetrics
from batcher.core.request import Parameters
from batcher.models.checked import CheckedModel
from batcher.models.protocol import LoadedModel
from batcher.workers.run_batch import run_batch
from tests.support.models import RecordingModel, checked, rows
from tests.support.scheduling import request

ROW = rows(1)


def advance_to_next(clock: Clock) -> float:
    """Let `clock` jump to its next call and make it; return the time."""
    clock.rightNow = max(clock.rightNow, clock.getDelayedCalls()[0].getTime())
    clock.advance(0)
    return clock.rightNow


def ignore_changes(condition: Condition, reason: str) -> None:
    """Do nothing: a simulated device is always alive."""


class SimulatedDevice:
    """A worker whose batches take `seconds(rows)` on the clock, one after the other.

    Attributes:
        sizes: rows of each batch, in the order they were started.
        busy: seconds that it computed.
        idle: seconds that it stood idle between two batches.
    """

    def __init__(
        self,
        model: CheckedModel,
        clock: Clock,
        seconds: Callable[[int], float],
        crossing: float = 0.0,
    ) -> None:
        """Run batches on `model`.

        A result reaches the loop `crossing` seconds after it is there.
        """
        self.sizes: list[int] = []
        self.busy = 0.0
        self.idle = 0.0
        self._model = model
        self._clock = clock
        self._seconds = seconds
        self._crossing = crossing
        self._waiting: deque[tuple[Batch, float]] = deque()
        self._computing = False
        self._ended_at: float | None = None
        self._deliver: Deliver

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Be ready at once."""
        self._deliver = deliver
        return succeed(self._model.loaded())

    def do(self, batch: Batch) -> None:
        """Run `batch` after those before it."""
        self._waiting.append((batch, self._clock.seconds()))
        self._compute_next()

    def linger(self) -> None:
        pass

    def let_begin(self) -> None:
        """Wait for nothing."""

    def quit(self) -> Deferred[None]:
        """End at once."""
        return succeed(None)

    def _compute_next(self) -> None:
        if self._computing or not self._waiting:
            return
        batch, handed_at = self._waiting.popleft()
        now = self._clock.seconds()
        if self._ended_at is not None:
            self.idle += now - self._ended_at
        self._computing = True
        self.sizes.append(batch.rows)
        taken = self._seconds(batch.rows)
        self.busy += taken
        self._clock.callLater(taken, self._computed, batch, now - handed_at, taken)

    def _computed(self, batch: Batch, waited: float, taken: float) -> None:
        self._computing = False
        self._ended_at = now = self._clock.seconds()
        outcome = run_batch(self._model, batch, now, self._clock.seconds)._replace(
            waited=waited, compute=taken
        )
        if self._crossing:
            self._compute_next()
            self._clock.callLater(self._crossing, self._deliver, batch, outcome)
        else:
            self._deliver(batch, outcome)
            self._compute_next()


class SimulatedLoad:
    """Requests of one row, of several levels, to a warm device whose batches take `seconds(rows)`.

    Attributes:
        clock: the only time there is.
        device: what runs the batches.
        answers: for each level the times of its answers, and how long each took.
    """

    def __init__(self, seconds: Callable[[int], float], policy: Policy, queue: BatchQueue) -> None:
        """Serve by `policy` what waits in `queue`."""
        self.clock = Clock()
        model = checked(RecordingModel())
        model.model.predict = lambda inputs: {"y": inputs["x"]}  # nothing is recorded of a long run
        self.device = SimulatedDevice(model, self.clock, seconds)
        admission = Admission(
            CostModel(), policy.max_batch_size, queue.max_rows, jitter=lambda: 0.5
        )
        self.scheduler = BatchScheduler(
            queue, policy, [self.device], self.clock, ModelMetrics("m", "1"), admission=admission
        )
        self.device.start(self.scheduler.deliver, ignore_changes)
        sizes = [1 << power for power in range(policy.max_batch_size.bit_length())]
        self.scheduler.loaded({size: seconds(size) for size in sizes})
        self.answers: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def by_chance(self, level: int, rate: float, until: float, seed: int = 1) -> None:
        """Send `rate` requests/s of `level` at random from now on, without waiting for answers."""
        random = Random(seed)

        def send() -> None:
            self.send(level)
            if self.clock.seconds() < until:
                self.clock.callLater(random.expovariate(rate), send)

        self.clock.callLater(random.expovariate(rate), send)

    def flood(self, level: int, clients: int) -> None:
        """Let `clients` send a request of `level` now, and another after each answer."""

        def again(_: object) -> None:
            self.send(level).addCallback(again)

        for _ in range(clients):
            again(None)

    def send(self, level: int) -> Deferred[None]:
        """Send a request of `level`; the Deferred fires when its answer has been noted."""
        sent = self.clock.seconds()

        def answered(_: object) -> None:
            now = self.clock.seconds()
            self.answers[level].append((now, now - sent))

        return self.scheduler.submit(request(ROW, Parameters(priority=level))).addCallback(answered)

    def run(self, until: float) -> None:
        """Let the time pass `until`."""
        while self.clock.getDelayedCalls() and advance_to_next(self.clock) < until:
            pass
        self.scheduler.check_invariants()

    def rate(self, level: int, since: float, until: float) -> float:
        """Return answers/s of `level` between two times."""
        return sum(since <= time < until for time, _ in self.answers[level]) / (until - since)

    def latency(self, level: int, share: float) -> float:
        """Return within what time that share of the answers of `level` came."""
        times = sorted(took for _, took in self.answers[level])
        return times[int(share * (len(times) - 1))]

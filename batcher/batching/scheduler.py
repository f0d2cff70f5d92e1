"""The scheduler of one model.

A Deferred for each request, one timer, cancellation, hand-over and delivery.

Requests wait singly and a batch is bound at the moment a worker can start it. Decisions are made
once a turn of the event loop, not once a request: everything that arrived in one turn is seen
together, so that the first of sixty requests that came at once does not run alone. When a batch
comes home the next one is handed over before a single answer is written: the device must not wait
for encoders.

One queue feeds all workers of the model, each of which takes the next batch when it is free. What a
worker gives back because it ended goes to another one, or waits until it is back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.batching.admission import Admission
from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.completion import Completions
from batcher.batching.options import DEFAULTS, SchedulerOptions
from batcher.batching.part import Part
from batcher.batching.pending_request import PendingRequest, halve, owner
from batcher.batching.places import Places
from batcher.batching.poison import Poison
from batcher.batching.policies.policy import Policy, Take, WaitUntil, WorkerState, no_cost
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import RERUNS, Reruns
from batcher.batching.worker import Outcome, Worker
from batcher.core.alarm import Alarm
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.core.spec import Array, nbytes_of
from batcher.core.waiters import Waiters
from batcher.errors import (
    BatcherError,
    Draining,
    KnownToFail,
    ModelNotReady,
    OutOfMemory,
    PredictedLate,
    QueueFull,
    TooLarge,
)

DEADLINE_GRAIN = 5e-3
"""Seconds between two walks over all that waits and runs, for deadlines that have passed.

A batch is looked at exactly.
"""

GroupKey = Callable[[Mapping[str, Array]], Hashable]
CallSoon = Callable[[Callable[[], None]], object]


class BatchScheduler:
    """Queues requests for one version of a model and answers each through its own Deferred.

    Deferreds fire on the reactor thread, in the order of the rows of a batch. Cancelling one drops
    its rows: from the queue at once, from a running batch when it returns; neighbours are never
    touched.

    Attributes:
        group_key: what requests must share to share a batch; None if all may.
        admission: what is known of how long batches take; None if nothing is to be learnt.
    """

    def __init__(
        self,
        queue: BatchQueue,
        policy: Policy,
        workers: Sequence[Worker],
        clock: IReactorTime,
        metrics: ModelMetrics,
        *,
        options: SchedulerOptions = DEFAULTS,
        group_key: GroupKey | None = None,
        admission: Admission | None = None,
        call_soon: CallSoon | None = None,
    ) -> None:
        """Wire `queue`, `policy`, `workers`, whose owner starts each with `deliver`, `clock` and `metrics`; nothing starts.

        `group_key` says what requests must share to share a batch; without, all may. `admission`
        learns how long batches take, and refuses who would be answered too late; without, only what
        has expired is dropped. `call_soon` calls a function in the next turn of the event loop;
        without, the timer does.
        """
        self._queue = queue
        self._policy = policy
        self._workers = workers
        self._handed = workers[0]  # the one that was given a batch last
        self._seconds = clock.seconds
        self._metrics = metrics
        version, depth, self._timeout, self._default_level, isolate, retry, remembered = options
        self._places = Places(len(workers), depth)
        self._endings = Completions(queue, metrics, clock.seconds, version)
        self.group_key = group_key
        self.admission = admission
        self._ceiling = (
            admission.ceiling if admission is not None else Ceiling(policy.max_batch_size)
        )
        self._poison = Poison(remembered)
        self._reruns = Reruns(self._ceiling, self._poison, isolate, retry)
        self._fresh = True  # whether the last batch that was sent was none of those
        self._earliest = inf  # no request's deadline is before this
        self._alarm = Alarm(clock, self._pump_and_check)
        self._call_soon = call_soon or (lambda function: self._alarm.set(clock.seconds()))
        self._drained, self._draining, self._pump_due = Waiters(), False, False
        self._broken = ""  # why no worker will take batches for the time being
        metrics.load = metrics.load or self

    @property
    def pending(self) -> int:
        """Requests that are not answered."""
        return self._endings.pending

    @property
    def in_flight_rows(self) -> int:
        """Rows that workers hold."""
        return self._places.rows

    @property
    def most_rows(self) -> int:
        """Rows that a batch may have."""
        return self._ceiling.rows

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows + self._queue.bulk.rows

    @property
    def queue_bytes(self) -> int:
        """Bytes of inputs that wait."""
        return self._queue.nbytes + self._queue.bulk.nbytes

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Queue `request`; the Deferred fires with its own rows, or fails with its own error.

        Reactor thread.

        Raises Draining, ModelNotReady, TooLarge if it could never fit into the queue, QueueFull or
        PredictedLate.
        """
        if self._draining:
            self._metrics.rejected_rows["draining"] += request.rows
            raise Draining("the model is being stopped and takes no more requests")
        if self._broken:
            self._metrics.rejected_rows["model_not_ready"] += request.rows
            raise ModelNotReady(self._broken, retry_after=5)
        nbytes, now = nbytes_of(request.inputs), self._seconds()
        asked, level, _, _ = request.parameters
        deadline, level = (
            now + self._timeout if asked is None else asked,
            level or self._default_level,
        )
        group = self.group_key(request.inputs) if self.group_key is not None else ()
        try:
            self._queue.check_room(request.rows, nbytes, level)
            self._poison.check(request.inputs, nbytes, now)
            if self.admission is not None and deadline - now < self.admission.horizon:
                self.admission.check(
                    self._queue,
                    self._places,
                    len(self._reruns),
                    request.rows,
                    level,
                    group,
                    now,
                    deadline,
                )
        except (TooLarge, QueueFull, PredictedLate, KnownToFail) as err:
            self._metrics.rejected_rows[err.code] += request.rows
            if isinstance(err, QueueFull) and self.admission is not None:
                err.retry_after = self.admission.retry_after()
            raise
        pending = PendingRequest(request, nbytes, group, level, now, deadline, self._cancelled)
        self._endings.pending += 1
        if request.rows <= self._ceiling.rows:
            self._queue.add(pending)
        else:
            pending.cut(self._ceiling.rows)
            for part in pending.parts:
                self._queue.add(part)
        if deadline < self._earliest:
            self._earliest = deadline
            self._alarm.set(deadline)
        if not self._pump_due and self._can_take():
            self._pump_due = True
            self._call_soon(self._pump_and_check)
        return pending.deferred

    def deliver(self, batch: Batch, outcome: Outcome) -> None:
        """Take back `batch` from its worker.

        The next one leaves before its answers are written. Reactor thread.
        """
        now, error = self._seconds(), outcome.error
        began = self._places.remove(batch, now)
        if self.admission is not None:
            self.admission.came_back(batch, began, now, outcome.compute, error is not None)
        if self.queue_rows or self._reruns or now >= self._earliest:
            self._pump()
            if len(self._places) == 1 and not self._queue.rows:
                self._handed.let_begin()
        self._metrics.model_time.observe(outcome.compute)
        if error is None:
            self._reruns.succeeded(batch)
            self._endings.answer(batch, outcome)
        else:
            self._metrics.failed_batches += 1
            self._metrics.out_of_memory += isinstance(error, OutOfMemory)
            if failed := self._reruns.take_up(batch, error, halve, now, in_vain=bool(self._broken)):
                self._endings.fail_parts(failed, error)
            else:
                self._earliest = min(self._earliest, *(part.deadline for part in batch.parts))
                self._endings.postpone(batch, error)
        if self._reruns:
            self._pump()
        self._check_drained()

    def set_alive(self, index: int, alive: bool) -> None:
        """Give the worker at `index` batches, or none. Reactor thread."""
        self._places.set_alive(index, alive)
        if alive:
            self._broken = ""
            self._pump_and_check()

    def give_up(self, reason: str) -> None:
        """End every request of which nothing runs, and take none, until a worker is alive.

        Reactor thread.
        """
        self._broken = reason
        running = {owner(part) for batch in self._places for part in batch.parts}
        for pending in [
            each
            for part in chain(self._queue, self._reruns)
            if (each := owner(part)) not in running
        ]:
            self._endings.fail(pending, ModelNotReady(reason, retry_after=5))
        self._check_drained()

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when all that were taken are answered. Reactor thread."""
        self._draining = True
        drained = self._drained.wait()
        self._pump()
        self._check_drained()
        return drained

    def fail_all(self, error: BatcherError) -> None:
        """End every request that is still here with `error`. Reactor thread."""
        self._draining = True
        for pending in [owner(part) for part in self._parts()]:
            self._endings.fail(pending, error)
        self._earliest = inf
        self._alarm.cancel()
        self._check_drained()

    def loaded(self, timings: Mapping[int, float]) -> None:
        """Learn from warm-up, seconds of a batch by its rows. Reactor thread."""
        if self.admission is not None:
            self.admission.seed(timings.items())

    def check_invariants(self) -> None:
        """Assert that counters equal what is there; for tests, after every step."""
        self._queue.check_invariants()
        self._places.check_invariants()
        self._endings.check_invariants(self._parts())
        assert all(
            owner(part).deadline >= self._earliest - DEADLINE_GRAIN or owner(part).finished
            for part in self._parts()
        )

    def _can_take(self) -> bool:
        return (held := self._places.held) == 0 or (
            held < self._places.depth and self._queue.rows >= self._ceiling.rows
        )

    def _pump(self) -> None:
        now, places = self._seconds(), self._places
        if now >= self._earliest:
            self._expire_due(now)
        cost = no_cost if self.admission is None else self.admission.cost(places, now)
        while True:
            rerun = self._next_rerun(now) if self._reruns else None
            if rerun is not None:
                self._send(rerun)
            state = WorkerState(places.held, places.depth, self._draining, self._ceiling.rows)
            decision = self._policy.decide(self._queue, state, now, cost)
            if isinstance(decision, Take):
                self._queue.take(
                    decision.parts, now
                )  # before any callback runs, which might change the queue
                self._send(Batch(decision.parts, decision.reason, now))
            for part in decision.shed:
                self._endings.expire(owner(part))
            if not isinstance(decision, Take) and not decision.shed and rerun is None:
                if self._fresh or state.held or not self._reruns:
                    break
                self._fresh = (
                    True  # what waits, waits for more, while nothing runs: it is the turn of reruns
                )
        if not self.pending:
            self._earliest = inf
        self._alarm.set(
            min(self._earliest, decision.time if isinstance(decision, WaitUntil) else inf)
        )

    def _next_rerun(self, now: float) -> Batch | None:
        """Return what is to run again now.

        By turns with fresh batches, where no other would run, and where too much waits.
        """
        held, turn = self._places.held, self._fresh or self._reruns.come_first
        due = held < self._places.depth if turn else held == 0 and not self._queue.rows
        return self._reruns.take(lambda part: not owner(part).finished, now) if due else None

    def _expire_due(self, now: float) -> None:
        """Answer every request whose deadline has passed, and look again when the next one may have."""
        alive = {
            pending: pending.deadline
            for pending in map(owner, self._parts())
            if not pending.finished
        }
        rest = min((deadline for deadline in alive.values() if deadline > now), default=inf)
        self._earliest = (
            max(rest, now + DEADLINE_GRAIN) if rest < inf else inf
        )  # before callbacks, which may submit
        for pending in sorted(
            (pending for pending in alive if alive[pending] <= now), key=alive.__getitem__
        ):
            self._endings.expire(pending)

    def _parts(self) -> Iterator[Part]:
        """Everything that waits or runs."""
        return chain(self._queue, self._reruns, *(batch.parts for batch in self._places))

    def _send(self, batch: Batch) -> None:
        self._fresh = batch.reason not in RERUNS
        self._metrics.count_sent(batch.rows, batch.reason)
        self._handed = self._workers[self._places.put(batch, batch.bound_at)]
        self._handed.do(batch)

    def _pump_and_check(self) -> None:
        self._pump_due = False
        self._pump()
        if self._places.rows and not self._queue.rows:
            self._handed.linger()
        self._check_drained()

    def _cancelled(self, pending: PendingRequest) -> None:
        self._endings.cancel(pending)
        self._check_drained()

    def _check_drained(self) -> None:
        if self._draining and not self._endings.pending and not self._places.rows:
            self._drained.release()

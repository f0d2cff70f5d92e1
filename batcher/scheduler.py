"""The scheduler of one model: a Deferred for each request, one timer, cancellation, hand-over and delivery.

Requests wait singly and a batch is bound at the moment a worker can start it. Decisions are made once a turn of the event
loop, not once a request: everything that arrived in one turn is seen together, so that the first of sixty requests that came
at once does not run alone. When a batch comes home the next one is handed over before a single answer is written: the device
must not wait for encoders.

Every request ends exactly once. It is `finished` from the moment its Deferred is about to fire, and whatever comes for it
later (its row from the worker, its deadline, its cancellation) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import chain
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.counters import ModelMetrics, Spent
from batcher.errors import BatcherError, DeadlineExceeded, Draining, PredictedLate, QueueFull, TooLarge
from batcher.pending import Pending, batch_error, nbytes_of, owner
from batcher.request import InferenceRequest, InferenceResponse
from batcher.scheduling.admission import Admission
from batcher.scheduling.batch import Batch
from batcher.scheduling.isolation import ISOLATE, Suspects
from batcher.scheduling.options import DEFAULTS, SchedulerOptions
from batcher.scheduling.policy import Policy, Take, WaitUntil, WorkerState, no_cost
from batcher.scheduling.queue import BatchQueue, Part
from batcher.spec import Array
from batcher.workers.alarm import Alarm
from batcher.workers.protocol import Outcome, Worker
from batcher.workers.waiters import Waiters

DEADLINE_GRAIN = 5e-3
"""Seconds between two walks over all that waits and runs, for deadlines that have passed; a batch is looked at exactly."""

GroupKey = Callable[[Mapping[str, Array]], Hashable]
CallSoon = Callable[[Callable[[], None]], object]


class BatchScheduler:
    """Queues requests for one version of a model and answers each through its own Deferred.

    Deferreds fire on the reactor thread, in the order of the rows of a batch. Cancelling one drops its rows: from the queue
    at once, from a running batch when it returns; neighbours are never touched.

    Attributes:
        group_key: what requests must share to share a batch; None if all may.
        pending: requests that are not answered; `in_flight_rows`: rows that the worker holds.
    """

    def __init__(
        self,
        queue: BatchQueue,
        policy: Policy,
        worker: Worker,
        clock: IReactorTime,
        metrics: ModelMetrics,
        *,
        options: SchedulerOptions = DEFAULTS,
        group_key: GroupKey | None = None,
        admission: Admission | None = None,
        call_soon: CallSoon | None = None,
    ) -> None:
        """Wire `queue`, `policy`, `worker`, whose owner starts it with `deliver`, `clock` and `metrics`; nothing starts.

        `group_key` says what requests must share to share a batch; without, all may. `admission` learns how long batches take,
        and refuses who would be answered too late; without, only what has expired is dropped. `call_soon` calls a function in
        the next turn of the event loop; without, the timer does.
        """
        self._queue = queue
        self._policy = policy
        self._worker = worker
        self._seconds = clock.seconds
        self._metrics = metrics
        self._version, self._places, self._timeout, self._default_level, isolate = options
        self.group_key = group_key
        self._admission = admission
        self._running: list[Batch] = []
        self._suspects = Suspects(policy.max_batch_size, isolate)
        self._fresh = True  # whether the last batch that was sent was none of those
        self._earliest = inf  # no request's deadline is before this
        self._alarm = Alarm(clock, self._pump_and_check)
        self._pump_due = False
        self._call_soon = call_soon or (lambda function: self._alarm.set(clock.seconds()))
        self._drained = Waiters()
        self._draining = False
        self.pending = 0
        self.in_flight_rows = 0
        metrics.load = metrics.load or self

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows

    @property
    def queue_bytes(self) -> int:
        """Bytes of inputs that wait."""
        return self._queue.nbytes

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Queue `request`; the Deferred fires with its own rows, or fails with its own error. Reactor thread.

        Raises Draining, TooLarge if it could never fit into the queue, QueueFull or, if it would be late, PredictedLate.
        """
        if self._draining:
            self._metrics.rejected_rows["draining"] += request.rows
            raise Draining("the model is being stopped and takes no more requests")
        nbytes, now = nbytes_of(request.inputs), self._seconds()
        asked, level, _ = request.parameters
        deadline, level = now + self._timeout if asked is None else asked, level or self._default_level
        group = self.group_key(request.inputs) if self.group_key is not None else ()
        try:
            self._queue.check_room(request.rows, nbytes)
            if self._admission is not None and deadline - now < self._admission.horizon:
                self._admission.check(self._queue, self._running, request.rows, level, group, now, deadline)
        except (TooLarge, QueueFull, PredictedLate) as err:
            self._metrics.rejected_rows[err.code] += request.rows
            if isinstance(err, QueueFull) and self._admission is not None:
                err.retry_after = self._admission.retry_after()
            raise
        pending = Pending(request, nbytes, group, level, now, deadline, self._cancelled)
        self.pending += 1
        if request.rows <= self._policy.max_batch_size:
            self._queue.add(pending)
        else:
            pending.cut(self._policy.max_batch_size)
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
        """Take back `batch` from the worker; the next one leaves before its answers are written. Reactor thread."""
        if self._admission is not None:
            self._admission.came_back(batch, self._seconds(), outcome.compute, outcome.error is not None)
        self._running.remove(batch)
        self.in_flight_rows -= batch.rows
        if self._queue.rows or self._suspects or self._seconds() >= self._earliest:
            self._pump()
            if len(self._running) == 1 and not self._queue.rows:
                self._worker.let_begin()
        self._metrics.model_time.observe(outcome.compute)
        if outcome.error is not None:
            self._metrics.failed_batches += 1
            if self._suspects.halve(batch, outcome.error):
                self._pump()
            else:
                error = batch_error(outcome.error, "/".join(self._metrics.labels), batch.rows)
                for part in batch.parts:
                    self._fail(owner(part), error)
        else:
            self._suspects.succeeded(batch)
            self._answer(batch, outcome)
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
            self._fail(pending, error)
        self._earliest = inf
        self._alarm.cancel()
        self._check_drained()

    def loaded(self, timings: Mapping[int, float]) -> None:
        """Learn from warm-up, seconds of a batch by its rows, and be the one that the metrics tell of. Reactor thread."""
        self._metrics.load = self
        if self._admission is not None:
            self._admission.seed(timings.items())

    def check_invariants(self) -> None:
        """Assert that counters equal what is there; for tests, after every step."""
        self._queue.check_invariants()
        assert self.in_flight_rows == sum(batch.rows for batch in self._running)
        assert len(self._running) <= self._places
        alive = {pending for pending in map(owner, self._parts()) if not pending.finished}
        assert self.pending == len(alive)
        assert all(pending.deadline >= self._earliest - DEADLINE_GRAIN for pending in alive), "no deadline is overlooked"
        assert all(not owner(part).finished for part in self._queue), "finished requests leave the queue"

    def _can_take(self) -> bool:
        held = len(self._running)
        return held == 0 or (held < self._places and self._queue.rows >= self._policy.max_batch_size)

    def _pump(self) -> None:
        now = self._seconds()
        if now >= self._earliest:
            self._expire_due(now)
        cost = no_cost if self._admission is None else self._admission.cost(self._running, now)
        if self._suspects and len(self._running) < self._places and (self._fresh or not self._queue.rows):
            half = self._suspects.take(lambda part: not owner(part).finished, now)
            if half is not None:
                self._send(half)
        while True:
            state = WorkerState(len(self._running), self._places, self._draining)
            decision = self._policy.decide(self._queue, state, now, cost)
            if isinstance(decision, Take):
                self._queue.take(decision.parts)  # before any callback runs, which might change the queue
                self._send(Batch(decision.parts, decision.reason, now))
            for part in decision.shed:
                self._expire(owner(part))
            if not isinstance(decision, Take) and not decision.shed:
                break
        if not self.pending:
            self._earliest = inf
        time = decision.time if isinstance(decision, WaitUntil) else inf
        self._alarm.set(min(time, self._earliest))

    def _expire_due(self, now: float) -> None:
        """Answer every request whose deadline has passed, and look again when the next one may have."""
        alive = {pending: pending.deadline for pending in map(owner, self._parts()) if not pending.finished}
        rest = min((deadline for deadline in alive.values() if deadline > now), default=inf)
        self._earliest = max(rest, now + DEADLINE_GRAIN) if rest < inf else inf  # before callbacks, which may submit
        for pending in sorted((pending for pending in alive if alive[pending] <= now), key=alive.__getitem__):
            self._expire(pending)

    def _parts(self) -> Iterator[Part]:
        """Everything that waits or runs."""
        return chain(self._queue, self._suspects, *(batch.parts for batch in self._running))

    def _send(self, batch: Batch) -> None:
        self._fresh = batch.reason != ISOLATE
        self._running.append(batch)
        self.in_flight_rows += batch.rows
        self._metrics.flushes[batch.reason] += 1
        self._metrics.batch_size.observe(batch.rows)
        self._worker.do(batch)

    def _pump_and_check(self) -> None:
        self._pump_due = False
        self._pump()
        if self._running and not self._queue.rows:
            self._worker.linger()
        self._check_drained()

    def _answer(self, batch: Batch, outcome: Outcome) -> None:
        started = batch.bound_at + outcome.waited
        compute, rows, version, now = outcome.compute, batch.rows, self._version, self._seconds()
        waits = [started - part.arrival for part in batch.parts]
        self._metrics.count_batch(now, rows, waits, compute, outcome.collating, outcome.splitting)
        for part, result, wait in zip(batch.parts, outcome.results, waits, strict=True):
            pending = owner(part)
            if pending.deadline < now:
                self._expire(pending)
            try:
                answer = None if pending.finished else pending.receive(part, result, version, wait, compute, rows)
            except BatcherError as err:
                self._fail(pending, err)
                continue
            if answer is not None:
                self._finish(pending, self._metrics.statistics.success)
                pending.deferred.callback(answer)

    def _fail(self, pending: Pending, error: BatcherError) -> None:
        if not pending.finished:
            for part in pending.parts:
                self._queue.remove(part)
            self._finish(pending, self._metrics.statistics.fail)
            pending.deferred.errback(error)

    def _expire(self, pending: Pending) -> None:
        if pending.finished:
            return
        queued = pending.drop(self._queue, self._metrics.expired_rows)
        self._finish(pending, self._metrics.statistics.fail)
        late: BatcherError = DeadlineExceeded(f"the deadline passed while the request {'waited' if queued else 'ran'}")
        if self._seconds() < pending.deadline:
            late = PredictedLate("the request could no longer be answered by its deadline")
        pending.deferred.errback(late)

    def _cancelled(self, pending: Pending) -> None:
        pending.drop(self._queue, self._metrics.cancelled_rows)
        self._finish(pending, self._metrics.statistics.fail)
        self._check_drained()

    def _finish(self, pending: Pending, count: Spent) -> None:
        count.add(1, self._seconds() - pending.arrival)
        pending.finish()
        self.pending -= 1

    def _check_drained(self) -> None:
        if self._draining and self.pending == 0 and not self._running:
            self._drained.release()

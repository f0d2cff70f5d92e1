"""The scheduler of one model: a Deferred for each request, one timer, cancellation, hand-over and delivery.

Requests wait singly and a batch is bound at the moment a worker can start it. Decisions are made once a turn of the event
loop, not once a request: everything that arrived in one turn is seen together, so that the first of sixty requests that came
at once does not run alone. When a batch comes home the next one is handed over before a single answer is written: the device
must not wait for encoders.

Every request ends exactly once. It is `finished` from the moment its Deferred is about to fire, and whatever comes for it
later (its row from the worker, its deadline, its cancellation) is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from traceback import format_exception

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from batcher.errors import BatcherError, DeadlineExceeded, Draining, QueueFull, TooLarge
from batcher.metrics import ModelMetrics
from batcher.pending import Pending, model_error, nbytes_of
from batcher.request import InferenceRequest, InferenceResponse
from batcher.scheduling.batch import Batch
from batcher.scheduling.deadlines import Deadlines
from batcher.scheduling.policy import Cost, Policy, Take, WaitUntil, WorkerState, no_cost
from batcher.scheduling.queue import BatchQueue, Part
from batcher.spec import Array
from batcher.workers.protocol import Outcome, Worker

_log = Logger()


class BatchScheduler:
    """Queues requests for one version of a model and answers each through its own Deferred.

    Deferreds fire on the reactor thread, in the order of the rows of a batch. Cancelling one drops its rows: from the queue
    at once, from a running batch when it returns; neighbours are never touched.
    """

    def __init__(
        self,
        queue: BatchQueue,
        policy: Policy,
        worker: Worker,
        clock: IReactorTime,
        metrics: ModelMetrics,
        *,
        version: str = "1",
        places: int = 2,
        timeout: float = 30.0,
        default_level: int = 1,
        group_key: Callable[[Mapping[str, Array]], Hashable] = lambda inputs: (),
        cost: Cost = no_cost,
    ) -> None:
        """Wire the parts; nothing starts.

        Args:
            queue: where requests wait.
            policy: decides when a batch is sent, and with what.
            worker: runs batches; its owner starts it with `deliver`.
            clock: the only time there is.
            metrics: counted into.
            version: named in answers.
            places: batches the worker may hold.
            timeout: seconds until a request is worthless that names no time of its own.
            default_level: priority of a request that names none.
            group_key: what requests must share to share a batch.
            cost: estimates the seconds of a batch.
        """
        self._queue = queue
        self._policy = policy
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._version = version
        self._places = places
        self._timeout = timeout
        self._default_level = default_level
        self._group_key = group_key
        self._cost = cost
        self._running: list[Batch] = []
        self._deadlines: Deadlines[Pending] = Deadlines()
        self._timer: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []
        self._draining = False
        self.pending = 0
        self.in_flight_rows = 0
        metrics.load = self

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

        Raises:
            Draining: no more requests are taken.
            TooLarge: it could never fit into the queue.
            QueueFull: it does not fit now.
        """
        nbytes = nbytes_of(request.inputs)
        self._admit(request.rows, nbytes)
        now = self._clock.seconds()
        deadline = request.parameters.deadline
        pending = Pending(request, now, now + self._timeout if deadline is None else deadline)
        pending.deferred = Deferred(lambda _: self._cancelled(pending))
        level = request.parameters.priority or self._default_level
        for part in pending.cut(self._policy.max_batch_size, self._group_key(request.inputs), level, nbytes):
            self._queue.add(part)
        self.pending += 1
        self._deadlines.add(pending.deadline, pending)
        self._wake_by(now if self._can_take() else pending.deadline)
        return pending.deferred

    def deliver(self, batch: Batch, outcome: Outcome) -> None:
        """Take back `batch` from the worker; the next one leaves before its answers are written. Reactor thread."""
        self._running.remove(batch)
        self.in_flight_rows -= batch.rows
        self._pump()
        self._metrics.model_time.observe(outcome.compute)
        if outcome.error is not None:
            self._metrics.failed_batches += 1
            error = model_error(outcome.error)
            _log.error(
                "model {model}: a batch of {rows} rows failed\n{trace}",
                model="/".join(self._metrics.labels),
                rows=batch.rows,
                trace="".join(format_exception(outcome.error)),
            )
            for part in batch.parts:
                self._fail(self._owner(part), error)
        else:
            for part, rows in zip(batch.parts, outcome.results, strict=True):
                self._receive(part, rows, batch, outcome)
        self._check_drained()

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when all that were taken are answered. Reactor thread."""
        self._draining = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self._pump()
        self._check_drained()
        return drained

    def fail_all(self, error: BatcherError) -> None:
        """End every request that is still here with `error`. Reactor thread."""
        self._draining = True
        waiting = [self._owner(part) for part in [*self._queue, *(part for batch in self._running for part in batch.parts)]]
        for pending in waiting:
            self._fail(pending, error)
        self._check_drained()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def check_invariants(self) -> None:
        """Assert that counters equal what is there; for tests, after every step."""
        self._queue.check_invariants()
        assert self.in_flight_rows == sum(batch.rows for batch in self._running)
        assert len(self._running) <= self._places
        owners = {self._owner(part) for part in self._queue}
        owners |= {self._owner(part) for batch in self._running for part in batch.parts}
        assert self.pending == len(self._deadlines) == sum(not owner.finished for owner in owners)
        assert all(not self._owner(part).finished for part in self._queue), "finished requests leave the queue"

    def _admit(self, rows: int, nbytes: int) -> None:
        if self._draining:
            self._metrics.rejected_rows["draining"] += rows
            raise Draining("the model is being stopped and takes no more requests")
        try:
            self._queue.check_room(rows, nbytes)
        except (TooLarge, QueueFull) as err:
            self._metrics.rejected_rows[err.code] += rows
            raise

    def _can_take(self) -> bool:
        held = len(self._running)
        return held == 0 or (held < self._places and self._queue.rows >= self._policy.max_batch_size)

    def _pump(self) -> None:
        now = self._clock.seconds()
        while (late := self._deadlines.pop_expired(now)) is not None:
            self._expire(late, known=True)
        while True:
            state = WorkerState(len(self._running), self._places, self._draining)
            decision = self._policy.decide(self._queue, state, now, self._cost)
            if isinstance(decision, Take):
                self._bind(decision, now)  # before any callback runs, which might change the queue
            for part in decision.shed:
                self._expire(self._owner(part))
            if not isinstance(decision, Take) and not decision.shed:
                break
        deadline = self._deadlines.next_deadline()
        wakes = [time for time in (deadline, decision.time if isinstance(decision, WaitUntil) else None) if time is not None]
        if wakes:
            self._wake_by(min(wakes))

    def _bind(self, take: Take, now: float) -> None:
        self._queue.take(take.parts)
        batch = Batch(take.parts, take.reason, now)
        self._running.append(batch)
        self.in_flight_rows += batch.rows
        self._metrics.flushes[take.reason] += 1
        self._metrics.batch_size.observe(batch.rows)
        self._worker.do(batch)

    def _wake_by(self, time: float) -> None:
        delay = max(time - self._clock.seconds(), 0.0)
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(delay, self._pump_and_check)
        elif time < self._timer.getTime():
            self._timer.reset(delay)

    def _pump_and_check(self) -> None:
        self._timer = None
        self._pump()
        self._check_drained()

    def _receive(self, part: Part, rows: Mapping[str, Array], batch: Batch, outcome: Outcome) -> None:
        pending = self._owner(part)
        wait = batch.bound_at - pending.arrival + outcome.waited
        self._metrics.queue_wait.observe(wait)
        if pending.finished:
            return
        if pending.receive(part, rows, wait, batch, outcome):
            self._finish(pending)
            pending.deferred.callback(pending.response(self._version))

    def _fail(self, pending: Pending, error: BatcherError) -> None:
        if not pending.finished:
            self._drop(pending)
            self._finish(pending)
            pending.deferred.errback(error)

    def _expire(self, pending: Pending, known: bool = False) -> None:
        """Answer a request whose deadline passed; `known` if the deadlines have let go of it already."""
        if pending.finished:
            return
        queued = self._drop(pending)
        self._metrics.expired_rows["queued"] += queued
        self._metrics.expired_rows["in_flight"] += pending.request.rows - queued
        self._finish(pending, known)
        where = "waited" if queued else "ran"
        pending.deferred.errback(DeadlineExceeded(f"the deadline passed while the request {where}"))

    def _cancelled(self, pending: Pending) -> None:
        queued = self._drop(pending)
        self._metrics.cancelled_rows["queued"] += queued
        self._metrics.cancelled_rows["in_flight"] += pending.request.rows - queued
        self._finish(pending)
        self._check_drained()

    def _drop(self, pending: Pending) -> int:
        return sum(part.rows for part in pending.parts if self._queue.remove(part))

    def _finish(self, pending: Pending, known: bool = False) -> None:
        pending.finished = True
        pending.parts = []  # no cycle is left for the garbage collector
        self.pending -= 1
        if not known:
            self._deadlines.forget()

    def _check_drained(self) -> None:
        if self._draining and self.pending == 0 and not self._running:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)

    @staticmethod
    def _owner(part: Part) -> Pending:
        assert isinstance(part.owner, Pending)
        return part.owner

"""The scheduler of one model version: from a request to its answer, on the reactor thread.

A request waits in the queue by itself. A batch is put together at the moment a worker can start it,
so that it holds as many rows as have come by then. The work is divided:

    admission      may this request come in?
    queue          which requests wait, and in which order?
    dispatch       what runs next, and on which worker?
    reruns         what becomes of a batch that failed?
    deadlines      which requests are too late?
    completion     how does a request end?

The scheduler ties these together: it gives each request its Deferred, holds the one timer, and
turns events (a request, a batch that came back, a worker that ended, a timer) into the three steps
of `_pump`: end what is late, send what can be sent, set the timer again.

Decisions are made once a turn of the event loop, not once a request: all requests of one turn are
seen together, so that the first of sixty that came at once does not run alone. When a batch comes
back, the next one is handed over before a single answer is written: the device must not wait for
encoders.

One queue feeds all workers of the model; each takes the next batch when it is free. A batch that a
worker gives back because the worker ended goes to another worker, or waits until that one is back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.batching.admission import Admission
from batcher.batching.backlog import Backlog
from batcher.batching.batch import Batch
from batcher.batching.completion import Completions
from batcher.batching.cost import NO_TIMINGS, LengthTimings
from batcher.batching.deadlines import Deadlines
from batcher.batching.dispatch import Dispatcher
from batcher.batching.options import DEFAULT_OPTIONS, SchedulerOptions
from batcher.batching.pending_request import PendingRequest, halve, owner
from batcher.batching.places import Places
from batcher.batching.poison import PoisonList
from batcher.batching.policies.policy import Policy
from batcher.batching.queue import BatchQueue
from batcher.batching.ragged_cuts import padded_group
from batcher.batching.reruns import Reruns
from batcher.batching.returns import Returns
from batcher.batching.stagger import Stagger
from batcher.batching.worker import Outcome, Worker
from batcher.core.alarm import Alarm
from batcher.core.counters import ModelMetrics
from batcher.core.request import InferenceRequest, InferenceResponse, nbytes_of
from batcher.core.run_sizes import ANY_ROWS, RunSizes
from batcher.core.spec import Array
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, Draining, ModelNotReady, OutOfMemory, QueueFull
from batcher.models.model_errors import is_fault

NOT_READY_RETRY_S = 5
"""Seconds after which to ask a model again that is not ready: a restart takes about as long."""

GroupKey = Callable[[Mapping[str, Array]], Hashable]
CallSoon = Callable[[Callable[[], None]], object]


class BatchScheduler:
    """Queues requests for one version of a model and answers each through its own Deferred.

    Deferreds fire on the reactor thread, in the order of the rows of a batch. Cancelling a Deferred
    drops the rows of its request: from the queue at once, from a running batch when the batch comes
    back. Other requests are never touched by that.

    Attributes:
        group_key: gives the key that requests must share to share a batch; None if all may.
        admission: predicts how long requests wait, and refuses those that would be too late.
        returns: learns how long to wait for clients that come back.
        backlog: says how far behind the model is.
        idle: fires when workers hold no batch any more, or nobody waits for these.
    """

    def __init__(
        self,
        queue: BatchQueue,
        policy: Policy,
        workers: Sequence[Worker],
        clock: IReactorTime,
        metrics: ModelMetrics,
        *,
        admission: Admission,
        options: SchedulerOptions = DEFAULT_OPTIONS,
        group_key: GroupKey | None = None,
        call_soon: CallSoon | None = None,
    ) -> None:
        """Wire the collaborators; nothing starts. The owner starts each worker with `deliver`.

        `call_soon` calls a function in the next turn of the loop; without, the timer does. Reactor
        thread.
        """
        self.group_key = group_key
        self.admission = admission
        self._queue = queue
        self._seconds = clock.seconds
        self._metrics = metrics
        self._timeout = options.timeout
        self._default_level = level = options.default_level
        self._ceiling = ceiling = admission.ceiling
        self._places = places = Places(len(workers), options.pipeline_depth)
        self._poison_list = PoisonList(options.remember_failed_s)
        reruns = Reruns(ceiling, self._poison_list, options.isolate, options.retry_on_crash)
        completions = Completions(queue, metrics, clock.seconds, options.version)
        returns = Returns(admission.batch_seconds, options.max_wait)
        self._reruns, self._completions, self.returns = reruns, completions, returns
        self.backlog = Backlog(queue, places, reruns, admission, level, clock.seconds)
        by_turns = len(workers) > 1 and options.max_wait > 0
        stagger = Stagger(places, admission, options.max_wait) if by_turns else None
        self._dispatcher = Dispatcher(
            queue, policy, workers, places, ceiling, reruns, completions, metrics, returns, stagger
        )
        self._deadlines = Deadlines(self._dispatcher, completions)
        self._alarm = alarm = Alarm(clock, self._pump_and_check)
        self._call_soon = call_soon or (lambda function: alarm.set(clock.seconds()))
        self._pump_due = False
        self._drained, self.idle = Waiters(), Waiters()
        self._broken = self._broken_public = ""  # why no worker takes batches; what clients read
        metrics.load = metrics.load or self

    @property
    def pending(self) -> int:
        """Requests that are not answered. Reactor thread."""
        return self._completions.pending

    @property
    def in_flight_rows(self) -> int:
        """Rows that workers hold. Reactor thread."""
        return self._places.rows

    @property
    def ceiling_rows(self) -> int:
        """Rows that a batch may have. Reactor thread."""
        return self._ceiling.rows

    @property
    def queue_rows(self) -> int:
        """Rows that wait in the queue. Reactor thread."""
        return self._queue.rows + self._queue.bulk.rows

    @property
    def queue_bytes(self) -> int:
        """Bytes of inputs that wait in the queue. Reactor thread."""
        return self._queue.nbytes + self._queue.bulk.nbytes

    def submit(self, request: InferenceRequest) -> Deferred[InferenceResponse]:
        """Queue `request`; the Deferred fires with its own rows, or fails with its own error.

        Raises Draining, ModelNotReady, TooLarge if it could never fit into the queue, QueueFull,
        PredictedLate or KnownToFail. Reactor thread.
        """
        pending = self._admit(request)
        self._completions.pending += 1
        queue, waiting, most = self._queue, self._queue.rows, self._ceiling.rows
        if queue.cuts is not None and pending.rows > 1:
            most = min(most, queue.cuts.most_rows(padded_group([pending])))
        if pending.rows <= most:
            queue.add(pending)
        else:
            _add_pieces(queue, pending, most)
        if self.returns.counts and self.returns.note_rows(waiting, queue.rows, pending.arrival):
            self._pump()
        if pending.deadline < self._deadlines.earliest:
            self._deadlines.earliest = pending.deadline
            self._alarm.set(pending.deadline)
        # once a turn of the loop: what comes later in this turn is decided upon together
        if not self._pump_due and self._dispatcher.can_take():
            self._pump_due = True
            self._call_soon(self._pump_and_check)
        return pending.deferred

    def deliver(self, batch: Batch, outcome: Outcome) -> None:
        """Take back `batch` from its worker, send the next one, and answer. Reactor thread."""
        now, error = self._seconds(), outcome.error
        began = self._places.remove(batch, now)
        self.admission.note_batch(batch, began, now, outcome.compute, error is not None)
        in_turn = batch.rows - self._queue.bulk_rows(batch.parts)
        self.returns.note_end(in_turn, self._queue.rows, now)
        # the next batch leaves before answers are written, which takes longer than sending
        if self.queue_rows or self._reruns or now >= self._deadlines.earliest:
            self._pump()
            self._dispatcher.let_begin()
        self._metrics.model_time.observe(outcome.compute)
        if outcome.work is not None:
            self._metrics.count_work(outcome.work)
        if error is None:
            self._reruns.note_success(batch)
            if self._queue.run_sizes is not ANY_ROWS:
                computed = self._queue.run_sizes.runs_as(batch.rows)
                self._metrics.padded_rows += computed - batch.rows
            self._completions.answer(batch, outcome)
        else:
            self._take_back_failed(batch, error, now)
        if self._reruns:
            self._pump()
        self._check_drained()

    def set_alive(self, index: int, alive: bool) -> None:
        """Give batches to the worker at `index`, or no more of them. Reactor thread."""
        self._places.set_alive(index, alive)
        if alive:
            self._broken = ""
            self._pump_and_check()

    def give_up(self, reason: str, public: str) -> None:
        """Fail all requests of which nothing runs, and refuse new ones until a worker is alive.

        Clients read `public` alone. Reactor thread.
        """
        self._broken, self._broken_public = reason, public
        running = {owner(part) for batch in self._places for part in batch.parts}
        # a list first: failing a request changes the queue
        for pending in [owner(part) for part in self._dispatcher.waiting()]:
            if pending not in running:
                error = ModelNotReady(reason, NOT_READY_RETRY_S, public)
                self._completions.fail(pending, error)
        self.idle.release()
        self._check_drained()

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when all that were taken are answered. Reactor thread."""
        self._dispatcher.draining = True
        drained = self._drained.wait()
        self._pump()
        self._check_drained()
        return drained

    def fail_all(self, error: BatcherError) -> None:
        """End every request that is not answered with `error`, and take none. Reactor thread.

        The timer, which holds on to the scheduler, is let go of.
        """
        self._dispatcher.draining = True
        for pending in [owner(part) for part in self._dispatcher.parts()]:
            self._completions.fail(pending, error)
        self._deadlines.earliest = inf
        self._alarm.end()
        self.idle.release()
        self._check_drained()

    def loaded(
        self,
        timings: Mapping[int, float],
        max_rows: int | None = None,
        overflow_rows: int = 0,
        length_timings: LengthTimings = NO_TIMINGS,
        run_sizes: RunSizes = ANY_ROWS,
    ) -> None:
        """Learn what loading has shown of the model. Reactor thread.

        Args:
            timings: seconds that warm-up took for a batch, by its rows.
            max_rows: most rows of one batch, where the model takes no more; None for any number.
            overflow_rows: rows of the warm-up batch that did not fit into the memory; 0 for none.
            run_sizes: with how many rows the model runs batches.
            length_timings: the same seconds by rows and elements of a row, where rows are padded.
        """
        self._queue.run_sizes = run_sizes
        self.admission.run_with(run_sizes)
        self.admission.seed(timings.items(), length_timings)
        if max_rows is not None:
            self._ceiling.limit(max_rows)
        if overflow_rows:
            self._ceiling.note_overflow(overflow_rows, max(timings, default=0))

    def check_invariants(self) -> None:
        """Assert that counters equal what is there; for tests, after every step. Reactor thread."""
        self._queue.check_invariants()
        self._places.check_invariants()
        self._completions.check_invariants(self._dispatcher.parts())
        self._deadlines.check_invariants()

    def _admit(self, request: InferenceRequest) -> PendingRequest:
        """Return `request` ready to wait, or raise why it may not. Reactor thread."""
        rows, inputs = request.rows, request.inputs
        try:
            if self._dispatcher.draining:
                raise Draining("the model is being stopped and takes no more requests")
            if self._broken:
                raise ModelNotReady(self._broken, NOT_READY_RETRY_S, self._broken_public)
            nbytes, now = nbytes_of(inputs), self._seconds()
            own_deadline, own_level, _, _, _, _, _ = request.parameters
            deadline = now + self._timeout if own_deadline is None else own_deadline
            level = own_level or self._default_level
            group = self.group_key(inputs) if self.group_key is not None else ()
            self._queue.check_room(rows, nbytes, level)
            self._poison_list.check(inputs, nbytes, now)
            if deadline - now < self.admission.horizon:
                self.admission.check(
                    self._queue, self._places, len(self._reruns), rows, level, group, now, deadline
                )
        except BatcherError as err:
            self._metrics.rejected_rows[err.code] += rows
            if isinstance(err, QueueFull):
                err.retry_after = self.admission.note_full(self._queue, rows, level)
            raise
        return PendingRequest(request, nbytes, group, level, now, deadline, self._cancelled)

    def _take_back_failed(self, batch: Batch, error: BaseException, now: float) -> None:
        """Let `batch`, which failed by `error`, run again, or end its requests. Reactor thread."""
        self._metrics.failed_batches += 1
        self._metrics.exceptions["predict"] += is_fault(error)
        self._metrics.out_of_memory += isinstance(error, OutOfMemory)
        failed = self._reruns.note_failure(batch, error, halve, now, worth_a_run=not self._broken)
        if failed:
            self._completions.fail_parts(failed, error)
            return
        # a walk over deadlines since then has missed these parts, which stood in no list
        earliest = min(part.deadline for part in batch.parts)
        self._deadlines.earliest = min(self._deadlines.earliest, earliest)
        self._completions.note_rerun(batch, error)

    def _pump(self) -> None:
        """End what is late, send what can be sent, set the timer again. Reactor thread."""
        now = self._seconds()
        if now >= self._deadlines.earliest:
            self._deadlines.expire_due(now)
        cost = self.admission.cost(self._places, now)
        decide_again = self._dispatcher.send(now, cost)
        if not self._completions.pending:
            self._deadlines.earliest = inf
        self._alarm.set(min(self._deadlines.earliest, decide_again))

    def _pump_and_check(self) -> None:
        """Pump in a turn of its own, outside any event. Reactor thread."""
        self._pump_due = False
        self._pump()
        self._dispatcher.linger()
        self._check_drained()

    def _cancelled(self, pending: PendingRequest) -> None:
        """End a request whose Deferred is being cancelled. Reactor thread."""
        self._completions.cancel(pending)
        self._check_drained()

    def _check_drained(self) -> None:
        """Fire the Deferreds that wait for the end of batches, or of requests. Reactor thread."""
        if self._places.rows:
            return
        if len(self.idle):
            self.idle.release()
        if self._dispatcher.draining and not self._completions.pending:
            self._drained.release()


def _add_pieces(queue: BatchQueue, pending: PendingRequest, size: int) -> None:
    """Cut `pending` into parts of at most `size` rows, and queue them."""
    pending.cut(size)
    for part in pending.parts:
        queue.add(part)

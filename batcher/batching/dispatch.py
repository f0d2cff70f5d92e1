"""What runs next, and on which worker.

`Dispatcher.send` goes round until nothing is left to do. A round has two steps:

1. If reruns have the turn, the next rerun is sent.
2. The policy decides over the queue: a fresh batch is sent, requests that can no longer be answered
   in time are ended, or neither.

Reruns and fresh batches alternate (`reruns` says why), with three exceptions:

- With too many searches, reruns have every turn.
- If no batch runs and no row with a turn waits, a rerun goes: there is no fresh batch to wait for.
- If no batch runs and the policy waits for more rows, a rerun goes: the device would stand idle.

The dispatcher holds no timer: `send` returns the time at which a decision may change by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from math import inf

from batcher.batching.batch import Batch
from batcher.batching.ceiling import Ceiling
from batcher.batching.completion import Completions
from batcher.batching.part import Part
from batcher.batching.pending_request import owner
from batcher.batching.places import Places
from batcher.batching.policies.packing import rows_of
from batcher.batching.policies.policy import Cost, Decision, Policy, Take, WaitUntil, WorkerState
from batcher.batching.queue import BatchQueue
from batcher.batching.reruns import RERUN_REASONS, Reruns
from batcher.batching.returns import Returns
from batcher.batching.stagger import Stagger
from batcher.batching.worker import Worker
from batcher.core.counters import ModelMetrics
from batcher.core.padding import RaggedGroup


class Dispatcher:
    """Decides what runs next and hands it to a worker. Reactor thread.

    Attributes:
        draining: whether no more requests will come, so that no batch waits to grow.
    """

    def __init__(
        self,
        queue: BatchQueue,
        policy: Policy,
        workers: Sequence[Worker],
        places: Places,
        ceiling: Ceiling,
        reruns: Reruns,
        completions: Completions,
        metrics: ModelMetrics,
        returns: Returns,
        stagger: Stagger | None,
    ) -> None:
        """Send from `queue` and `reruns` to `workers`; `returns` and `stagger` say who waits."""
        self.draining = False
        self._queue = queue
        self._policy = policy
        self._workers = workers
        self._last_worker = workers[0]  # the worker that was handed the last batch
        self._places, self._ceiling = places, ceiling
        self._reruns = reruns
        self._completions = completions
        self._metrics = metrics
        self._returns, self._stagger = returns, stagger
        self._turn_of_reruns = False  # whether the last batch was a fresh one

    def parts(self) -> Iterator[Part]:
        """Iterate over all parts that wait or run."""
        return chain(self.waiting(), *(batch.parts for batch in self._places))

    def waiting(self) -> Iterator[Part]:
        """Iterate over all parts that wait, in the queue or for another run."""
        return chain(self._queue, self._reruns)

    def can_take(self) -> bool:
        """Return whether `send` might send a batch, judged by row counts alone."""
        held = self._places.held
        return held == 0 or (held < self._places.depth and self._queue.rows >= self._ceiling.rows)

    def send(self, now: float, cost: Cost) -> float:
        """Send all batches that can be sent `now`, and end the requests that are too late for them.

        Args:
            now: the time, in seconds.
            cost: seconds until a batch of so many rows of a shape is answered.

        Returns:
            The time, in seconds, at which to call again even if nothing happens; may be infinite.
        """
        while True:
            rerun_sent = len(self._reruns) > 0 and self._send_rerun(now)
            held = self._places.held
            decision = self._policy.decide(self._queue, self._worker_state(held, now), now, cost)
            if self._carry_out(decision, now) or rerun_sent:
                continue
            if self._turn_of_reruns or held or not self._reruns:
                return decision.time if isinstance(decision, WaitUntil) else inf
            # nothing runs and the policy waits for more rows: the third exception above
            self._turn_of_reruns = True

    def let_begin(self) -> None:
        """Let the last batch begin, if it is the only one: the device has nothing else to do."""
        if len(self._places) == 1:
            self._last_worker.let_begin()

    def linger(self) -> None:
        """Wait for the last batch here and now if that is worthwhile and nothing else waits."""
        if self._places.rows and not self._queue.rows:
            self._last_worker.linger()

    def _worker_state(self, held: int, now: float) -> WorkerState:
        """Return the state of the worker that takes the next batch."""
        depth, most, returns = self._places.depth, self._ceiling.rows, self._returns
        if self._stagger is not None and self._places.alive > 1:
            return self._state_by_turns(self._stagger, held, now)
        if not returns.found or held or self.draining or self._places.alive > 1:
            return WorkerState(held, depth, self.draining, most)
        head = self._queue.head()
        if head is None:
            returns.give_up()
        elif not returns.until:
            returns.plan(self._queue.rows, head.group, most, now)
        return WorkerState(held, depth, False, most, returns.until, returns.rows)

    def _state_by_turns(self, stagger: Stagger, held: int, now: float) -> WorkerState:
        """Return the state of the one of several workers that takes the next batch."""
        depth, most = self._places.depth, self._ceiling.rows
        head = None if held or self.draining else self._queue.head()
        until = 0.0
        if head is None:
            stagger.forget()
        else:
            until = stagger.until(head.group, most, now)
        return WorkerState(held, depth, self.draining, most, until, most if until else 0)

    def _send_rerun(self, now: float) -> bool:
        """Send the next rerun if reruns have the turn; return whether one was sent."""
        held = self._places.held
        if self._turn_of_reruns or self._reruns.come_first:
            due = held < self._places.depth
        else:
            due = held == 0 and not self._queue.rows
        batch = self._reruns.next_batch(_is_alive, now) if due else None
        if batch is None:
            return False
        self._hand_over(batch)
        return True

    def _carry_out(self, decision: Decision, now: float) -> bool:
        """Do what the policy decided; return whether that was anything."""
        took = isinstance(decision, Take)
        if isinstance(decision, Take):
            # before any callback runs, which might change the queue
            self._queue.take(decision.parts, now)
            if self._returns.rows:
                rows = rows_of(decision.parts) - self._queue.bulk_rows(decision.parts)
                self._returns.note_sent(rows, now)
            if self._stagger is not None:
                self._stagger.forget()
            self._hand_over(Batch(decision.parts, decision.reason, now))
        for part in decision.shed:
            self._completions.expire(owner(part))
        return took or len(decision.shed) > 0

    def _hand_over(self, batch: Batch) -> None:
        self._turn_of_reruns = batch.reason not in RERUN_REASONS
        self._metrics.count_sent(batch.rows, batch.reason)
        if isinstance(batch.group, RaggedGroup):
            own = [part.rows * batch.group.own_elements(part.inputs) for part in batch.parts]
            self._metrics.count_elements(sum(own), batch.rows * batch.group.elements)
        self._last_worker = self._workers[self._places.put(batch, batch.bound_at)]
        self._last_worker.do(batch)


def _is_alive(part: Part) -> bool:
    return not owner(part).finished

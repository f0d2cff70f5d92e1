"""The inference thread: loads a model, then runs one batch after the other.

The reactor's loop and the inference thread fight for the interpreter lock: only the thread that
holds the lock runs Python, and a thread that asks for the lock gets it at the end of a switch
interval. So the loop, which reads requests and writes answers, holds up a model, and a model in
Python holds up the loop. Two waits of the loop hand the lock over at the right moment:

| a batch takes on average | wait | the loop waits |
|---|---|---|
| up to `SHORT_BATCH_S` | `linger`, if it has many rows | until the batch is done |
| up to `LONG_BATCH_S` | none | |
| more than `LONG_BATCH_S` | `let_begin` | until the thread has taken the batch up |

`linger` comes after all that waited was handed over. A short batch of more than `ROWS_WITHOUT_WAIT`
rows is Python from end to end, so the loop cannot run beside the batch anyway: without the wait the
two threads would wake each other for the lock with every request that is read. The loop waits up to
`OUTCOME_WAIT_S` and delivers the batch on its own stack, without a call from the thread.

`let_begin` comes when one batch is back and the next was just handed over, before the loop writes
the answers of the first. Without the wait the long batch would begin a switch interval later
(`begin_wait.py`).

Batches cross the thread line twice, through a queue and back through `call_from_thread`; nothing
else is shared. The thread is a daemon: a model that hangs cannot be interrupted, but a daemon never
delays the end of the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter

from twisted.internet.defer import Deferred

from batcher.batching.batch import Batch
from batcher.batching.worker import Condition, ConditionListener, Deliver, Outcome
from batcher.core.error_text import message
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import empty_cache
from batcher.models.lost_devices import forget_frames, keep, keep_where_lost
from batcher.models.protocol import LoadedModel, Progress
from batcher.workers.begin_wait import LONG_BATCH_S, BeginWait
from batcher.workers.collecting import collect_once
from batcher.workers.daemon_threads import wait_at_exit
from batcher.workers.held_batches import HeldBatches
from batcher.workers.letting_go import let_go
from batcher.workers.load_alone import LOAD_LOCK, load_alone
from batcher.workers.load_limit import LoadLimit
from batcher.workers.load_turns import LoadTurn
from batcher.workers.options import LoopSide, WorkerOptions
from batcher.workers.overlapping import serve_overlapped
from batcher.workers.own_processes import OwnProcesses
from batcher.workers.run_batch import run_batch

ModelLoader = Callable[[Progress], CheckedModel]
"""Loads a model, and tells what it does meanwhile. Inference thread."""

SHORT_BATCH_S = 150e-6
"""Mean seconds of a batch up to which the loop waits for the outcome of a batch."""

ROWS_WITHOUT_WAIT = 4
"""Rows up to which the loop waits for the outcome of no batch."""

OUTCOME_WAIT_S = 200e-6
"""Seconds that the loop waits at most for an outcome: a short batch takes less."""


class InferenceThread:
    """A worker on a thread of its own.

    A thread cannot be killed. A batch that runs for too long is given up: the worker is dead until
    the model comes back from that batch, whose result is dropped. A lost device ends the thread. A
    load that takes too long is given up likewise: the thread is left behind with the memory that
    the model has taken, and ends when the model comes back.
    """

    _deliver: Deliver
    _changed: ConditionListener
    _started = False
    _load_given_up = False
    _quitting = False
    _awaits_outcome = False
    """Whether the loop waits for an outcome, and need not be called for it."""

    _mean_batch_s = 0.0
    """Seconds that a batch takes, a moving average."""

    _last_rows = 0
    """Rows of the batch handed over last."""

    def __init__(
        self, load: ModelLoader, loop: LoopSide, options: WorkerOptions, processes: OwnProcesses
    ) -> None:
        """Prepare a thread that loads by `load`, and whose end ends `processes`. Reactor thread."""
        self._load = load
        self._processes = processes
        self._title = options.title
        self._limit_s = options.watchdog_s
        self._progress = loop.progress
        self._raised = loop.raised
        self._call_from_thread = loop.call_from_thread
        self._batches: SimpleQueue[tuple[Batch, float] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Batch, Outcome]] = SimpleQueue()
        self._held = HeldBatches(loop.clock, options.watchdog_s, self._hangs)
        # begun, delivered as lost, and not back from the model
        self._given_up: deque[Batch] = deque()
        limit = options.title, options.load_timeout_s
        self._load_limit = LoadLimit(loop.clock, *limit, self._give_load_up)
        self._turn = LoadTurn(loop.turns)
        self._begin_wait = BeginWait()
        self._thread = Thread(target=self._run, name=options.name, daemon=True)
        self._loaded: Deferred[LoadedModel] = Deferred()
        self._ended: Deferred[None] = Deferred()

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Load the model on the thread when its turn has come. Reactor thread."""
        self._deliver = deliver
        self._changed = changed
        self._turn.wait(self._begin)
        return self._loaded

    def _begin(self) -> None:
        """Start the thread, which loads the model. Reactor thread."""
        self._started = True
        self._load_limit.begin()
        try:
            self._thread.start()
        except RuntimeError as err:  # no more threads
            self._call_from_thread(self._load_ended, ModelLoadError(f"{self._title}: {err}"))
            self._call_from_thread(self._end)

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        if self._quitting:
            raise RuntimeError("the worker takes no more batches")
        self._last_rows = batch.rows
        self._held.add(batch)
        self._begin_wait.reset()
        self._batches.put((batch, perf_counter()))

    def let_begin(self) -> None:
        """Wait for the batch handed over last to begin, if batches are long. Reactor thread."""
        if self._mean_batch_s > LONG_BATCH_S:
            self._begin_wait.wait()

    def linger(self) -> None:
        """Deliver the oldest batch here and now if it is likely to be done within microseconds.

        Reactor thread.
        """
        if self._mean_batch_s > SHORT_BATCH_S or self._last_rows <= ROWS_WITHOUT_WAIT:
            return
        done = []
        self._awaits_outcome = True
        with suppress(Empty):
            done.append(self._outcomes.get(timeout=OUTCOME_WAIT_S))
        self._awaits_outcome = False
        try:
            for batch, outcome in done:
                self._take_back(batch, outcome)
        finally:
            # An outcome may have come too late for `get`, from a thread that still saw the loop
            # wait and so did not call it. Nobody else would ever take that outcome.
            self._collect_all()

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end. Reactor thread."""
        if not self._quitting:
            self._quitting = True
            self._batches.put(None)
            wait_at_exit(self._thread)  # now: a loop that ends with the program may not hear `_end`
            if self._turn.is_waiting:
                reason = f"{self._title}: it was told to end before it loaded"
                self._load_ended(ModelLoadError(reason))
            if not self._started:  # there is no thread that could say so
                self._end()
        return self._ended

    def _collect(self) -> None:
        """Take one batch back.

        Each batch has a call of its own, or the loop would do nothing else while batches come
        quickly. The outcome is gone already if the loop lingered for it. Reactor thread.
        """
        if not self._outcomes.empty():
            self._take_back(*self._outcomes.get())

    def _collect_all(self) -> None:
        """Take back every batch whose outcome is here. Reactor thread."""
        for _ in range(self._outcomes.qsize()):
            self._take_back(*self._outcomes.get())

    def _take_back(self, batch: Batch, outcome: Outcome) -> None:
        """Deliver `batch`, unless it was given up and delivered before. Reactor thread."""
        if self._given_up:
            # The thread runs batches in order: those given up come back before any other.
            self._given_up.popleft()
            if not self._given_up and not isinstance(outcome.error, DeviceLost):
                self._changed(Condition.ALIVE, "it came back from the batch that it hung in")
            return
        self._held.remove_oldest()
        if isinstance(outcome.error, DeviceLost):
            self._changed(Condition.DEAD, f"its device is lost: {message(outcome.error)}")
            self._deliver(batch, outcome)
            self._give_back(f"the device of the worker is lost: {message(outcome.error)}")
        else:
            self._deliver(batch, outcome)

    def _hangs(self) -> None:
        """Give up all batches, unless the oldest has just come back. Reactor thread."""
        oldest = self._held.oldest
        assert oldest is not None, "an idle worker is not timed"
        self._collect_all()
        if self._held.oldest is not oldest:
            return
        reason = f"a batch has run for more than {self._limit_s:g} s"
        self._changed(Condition.DEAD, f"it hangs: {reason}")
        self._held.remove_overdue()
        self._given_up.append(oldest)
        lost = WorkerLost(f"the worker hangs: {reason}", begun=True)
        self._deliver(oldest, Outcome([], lost, 0.0, self._limit_s))
        self._give_back(f"the worker hangs: {reason}")

    def _give_back(self, reason: str) -> None:
        """Deliver all batches as lost, and keep the thread from those not begun. Reactor thread."""
        waiting = set()
        with suppress(Empty):
            while (task := self._batches.get_nowait()) is not None:
                waiting.add(task[0])
            # the order to quit, which the thread has still to find
            self._batches.put(None)
        held = self._held.remove_all()
        self._given_up += [batch for batch in held if batch not in waiting]
        for batch in held:
            lost = WorkerLost(reason, begun=batch not in waiting)
            self._deliver(batch, Outcome([], lost, 0.0, 0.0))

    def _run(self) -> None:
        """Load the model, run batches and let go of the model. Inference thread."""
        self._processes.begin()
        try:
            model = load_alone(
                self,
                self._title,
                lambda: self._load(self._report),
                self._call_from_thread,
                lambda: self._call_from_thread(self._turn.end),
                self._refuse_if_given_up,
            )
        except BaseException as err:  # a module may call sys.exit() when it is imported
            forget_frames(err)  # whoever keeps the reason keeps nothing of the model
            self._call_from_thread(self._load_ended, err)
            with self._processes.ending():
                collect_once()
        else:
            self._call_from_thread(self._load_ended, model.loaded())
            self._serve(model)
            with self._processes.ending():
                del model
                collect_once()  # modules of PyTorch hold on to each other
        empty_cache()  # the next model has a stream of its own, and could not use what is kept
        self._call_from_thread(self._end)

    def _serve(self, model: CheckedModel) -> None:
        """Run batches until the order to quit comes or the device is lost. Inference thread."""
        if model.model.overlaps:
            serve_overlapped(model, self._batches, self._begin_wait.begun, self._put)
            keep_where_lost(model)
            return
        while (task := self._batches.get()) is not None:
            batch, handed_at = task
            if self._mean_batch_s > LONG_BATCH_S:
                self._begin_wait.begun()
            outcome = run_batch(model, batch, handed_at, perf_counter)
            is_lost = isinstance(outcome.error, DeviceLost)
            if is_lost:
                keep(outcome.error)  # first: the loop may free the error as soon as it has it
            self._put(batch, outcome)
            del task, batch, outcome  # nothing of a finished batch is kept while the thread waits
            if is_lost:
                break
        keep_where_lost(model)

    def _put(self, batch: Batch, outcome: Outcome) -> None:
        """Have the loop take `batch` back. Inference thread."""
        self._mean_batch_s += 0.1 * (outcome.compute - self._mean_batch_s)
        self._outcomes.put((batch, outcome))
        # Asked after the outcome was put: a loop that waits takes it without a call.
        if not self._awaits_outcome:
            self._call_from_thread(self._collect)

    def _report(self, text: str) -> None:
        """Tell the loop what is being done while the model loads. Inference thread."""
        self._call_from_thread(self._progress, text)

    def _refuse_if_given_up(self) -> None:
        """Raise ModelLoadError if nobody waits for the load any more. Inference thread."""
        if self._load_given_up:
            raise ModelLoadError(f"{self._title}: it was given up")

    def _give_load_up(self, reason: str) -> None:
        """Leave the load that takes too long behind, and let others load. Reactor thread."""
        self._load_given_up = True
        LOAD_LOCK.take_from(self)
        self._load_ended(ModelLoadError(reason))

    def _load_ended(self, result: LoadedModel | BaseException) -> None:
        """Tell how the load went, unless it was given up before. Reactor thread."""
        self._load_limit.end()
        self._turn.end()
        if self._loaded.called:
            return
        if isinstance(result, LoadedModel):
            self._loaded.callback(result)
            return
        stage = result.stage if isinstance(result, ModelLoadError) else "load"
        if stage:
            self._raised(stage)
        self._loaded.errback(result)

    def _end(self) -> None:
        """Tell that the thread has ended, or is about to. Reactor thread."""
        self._held.stop()
        self._load_limit.stop()
        let_go(self, "_load", "_processes", "_progress", "_raised", "_deliver", "_changed")
        wait_at_exit(self._thread)
        self._ended.callback(None)

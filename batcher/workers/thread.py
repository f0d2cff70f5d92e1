"""The inference thread: holds the model, loaded once, and runs one batch after the other.

Batches cross the thread line twice, through a queue and back through `call_from_thread`; nothing
else is shared. The thread is a daemon: a model that hangs cannot be interrupted, but it never
delays the end of the process.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import perf_counter

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from batcher.batching.batch import Batch
from batcher.batching.worker import CallFromThread, Changed, Condition, Deliver, Outcome
from batcher.core.error_text import message
from batcher.errors import DeviceLost, ModelLoadError, WorkerLost
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Loaded, Progress
from batcher.workers.load_limit import LoadLimit
from batcher.workers.run_batch import run_batch
from batcher.workers.watchdog import Watchdog

Load = Callable[[Progress], CheckedModel]

SHORT = 150e-6
PATIENCE = 200e-6
FEW = 4
"""A batch of more than `FEW` rows on a model that usually takes less than `SHORT` seconds is waited for, up to `PATIENCE`.

Such a batch is Python from end to end, so loop and worker cannot run side by side: left to
themselves they wake each other for the interpreter lock with every request that is read.
"""


LONG = 1e-3
HANDOVER = 300e-6
STUBBORN = 1000
"""Where a batch usually takes more than `LONG` seconds, the loop lets it begin, up to `HANDOVER` seconds, before it goes on.

Otherwise the thread, woken, waits for the interpreter lock until the switch interval is over, while
the loop writes answers. Whoever waited much longer waited for the lock itself: the model keeps it,
and the next `STUBBORN` batches are not let begin.
"""


class InferenceThread:
    """A worker on a thread of its own.

    A thread cannot be killed. When a batch runs for too long it is given up, and the worker is dead
    until the model comes back from it; its result is dropped then. When the device is lost, the
    thread ends. A load that takes too long is given up likewise: the thread is left behind, with
    what the model has taken, and ends when the model comes back.
    """

    def __init__(
        self,
        name: str,
        load: Load,
        progress: Progress,
        call_from_thread: CallFromThread,
        clock: IReactorTime,
        watchdog: float = inf,
        title: str = "the model",
        load_timeout: float = 0.0,
    ) -> None:
        """Prepare a thread.

        Args:
            name: what it is called.
            load: loads the model, on it.
            progress: told, on the reactor thread, what is being done.
            call_from_thread: the way back.
            clock: measures how long loading takes and batches run.
            watchdog: seconds after which a batch is given up.
            title: what the model is called when it cannot be loaded in time, or at all.
            load_timeout: seconds after which loading is given up; 0 never gives it up.
        """
        self._load = load
        self._title = title
        self._progress = progress
        self._call_from_thread = call_from_thread
        self._batches: SimpleQueue[tuple[Batch, float] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Batch, Outcome]] = SimpleQueue()
        self._held: deque[Batch] = deque()  # handed over and not delivered
        self._given_up: deque[Batch] = deque()  # begun, delivered for lost, and not come back
        self._watchdog = Watchdog(clock, watchdog, self._hangs)
        self._limit = watchdog
        self._load_limit = LoadLimit(
            clock, title, load_timeout, lambda reason: self._load_ended(ModelLoadError(reason))
        )
        self._began = (
            Event()
        )  # whether the batch handed over last has begun, where batches are long
        self._awaited = False  # whether the reactor thread waits, so that it need not be called
        self._usual = 0.0  # seconds of a batch, a moving average
        self._stubborn = 0  # batches that are not to be let begin
        self._rows = 0  # of the last batch
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._quitting = False
        self._loaded: Deferred[Loaded] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._deliver: Deliver
        self._changed: Changed

    def start(self, deliver: Deliver, changed: Changed) -> Deferred[Loaded]:
        """Start the thread and load the model on it. Reactor thread."""
        self._deliver = deliver
        self._changed = changed
        self._load_limit.begin()
        try:
            self._thread.start()
        except RuntimeError as err:  # no more threads
            self._call_from_thread(self._load_ended, ModelLoadError(f"{self._title}: {err}"))
            self._call_from_thread(self._end)
        return self._loaded

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        if self._quitting:
            raise RuntimeError("the worker takes no more batches")
        self._rows = batch.rows
        if not self._held:
            self._watchdog.begin()
        self._held.append(batch)
        self._began.clear()
        self._batches.put((batch, perf_counter()))

    def let_begin(self) -> None:
        """Wait for the batch handed over last to begin, if it is a long one. Reactor thread."""
        if self._usual <= LONG:
            return
        if self._stubborn:
            self._stubborn -= 1
            return
        since = perf_counter()
        self._began.wait(HANDOVER)
        if perf_counter() - since > 2 * HANDOVER:
            self._stubborn = STUBBORN

    def linger(self) -> None:
        """Deliver the oldest batch here and now if it is likely to be done within microseconds.

        Reactor thread.
        """
        if self._usual > SHORT or self._rows <= FEW:
            return
        done = []
        self._awaited = True
        with suppress(Empty):
            done.append(self._outcomes.get(timeout=PATIENCE))
        self._awaited = False
        try:
            for batch, outcome in done:
                self._take_back(batch, outcome)
        finally:
            # what was put there too late for `get` and too early for `_awaited`
            self._collect_all()

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end. Reactor thread."""
        if not self._quitting:
            self._quitting = True
            self._batches.put(None)
        return self._ended

    def _collect(self) -> None:
        """Take one batch back: each has a call of its own, or the loop would do nothing else while batches come quickly."""
        if not self._outcomes.empty():
            self._take_back(*self._outcomes.get())

    def _collect_all(self) -> None:
        for _ in range(self._outcomes.qsize()):
            self._take_back(*self._outcomes.get())

    def _take_back(self, batch: Batch, outcome: Outcome) -> None:
        if self._given_up:
            self._given_up.popleft()
            if not self._given_up and not isinstance(outcome.error, DeviceLost):
                self._changed(Condition.ALIVE, "it came back from the batch that it hung in")
            return
        self._held.popleft()
        if self._held:
            self._watchdog.begin()
        else:
            self._watchdog.rest()
        if isinstance(outcome.error, DeviceLost):
            self._changed(Condition.DEAD, f"its device is lost: {message(outcome.error)}")
            self._deliver(batch, outcome)
            self._give_back(f"the device of the worker is lost: {message(outcome.error)}")
        else:
            self._deliver(batch, outcome)

    def _hangs(self) -> None:
        """Give up what it holds, unless the batch that seemed to hang has just come back."""
        oldest = self._held[0]
        self._collect_all()
        if not self._held or self._held[0] is not oldest:
            return
        told = f"a batch has run for more than {self._limit:g} s"
        self._changed(Condition.DEAD, f"it hangs: {told}")
        self._given_up.append(self._held.popleft())
        self._deliver(
            oldest,
            Outcome([], WorkerLost(f"the worker hangs: {told}", begun=True), 0.0, self._limit),
        )
        self._give_back(f"the worker hangs: {told}")

    def _give_back(self, reason: str) -> None:
        """Deliver what the thread has not begun; it shall not come upon it later."""
        self._watchdog.rest()
        waiting = set()
        with suppress(Empty):
            while (task := self._batches.get_nowait()) is not None:
                waiting.add(task[0])
            self._batches.put(None)
        held, self._held = self._held, deque()
        self._given_up += [batch for batch in held if batch not in waiting]
        for batch in held:
            self._deliver(
                batch, Outcome([], WorkerLost(reason, begun=batch not in waiting), 0.0, 0.0)
            )

    def _run(self) -> None:
        try:
            model = self._load(self._report)
        except (
            BaseException
        ) as err:  # a module that calls sys.exit() when it is imported is a failure like any other
            self._call_from_thread(self._load_ended, err)
        else:
            self._call_from_thread(self._load_ended, model.loaded())
            self._serve(model)
            del model
            gc.collect()  # modules of PyTorch hold on to each other
        self._call_from_thread(self._end)

    def _load_ended(self, result: Loaded | BaseException) -> None:
        self._load_limit.end()
        if self._loaded.called:
            return  # it was given up
        if isinstance(result, Loaded):
            self._loaded.callback(result)
        else:
            self._loaded.errback(result)

    def _end(self) -> None:
        self._watchdog.stop()
        self._ended.callback(None)

    def _report(self, text: str) -> None:
        self._call_from_thread(self._progress, text)

    def _serve(self, model: CheckedModel) -> None:
        while (task := self._batches.get()) is not None:
            batch, handed_at = task
            if self._usual > LONG:
                self._began.set()
            outcome = run_batch(model, batch, handed_at, perf_counter)
            self._usual += 0.1 * (outcome.compute - self._usual)
            self._outcomes.put((batch, outcome))
            lost = isinstance(outcome.error, DeviceLost)
            if not self._awaited:
                self._call_from_thread(self._collect)
            del task, batch, outcome  # nothing of a finished batch is kept while the thread waits
            if lost:
                break

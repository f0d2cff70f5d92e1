"""The inference thread: holds the model, loaded once, and runs one batch after the other.

Batches cross the thread line twice, through a queue and back through `call_from_thread`; nothing else is shared. The thread
is a daemon: a model that hangs cannot be interrupted, but it never delays the end of the process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import perf_counter

from twisted.internet.defer import Deferred

from batcher.models.loading import CheckedModel, Progress
from batcher.scheduling.batch import Batch
from batcher.workers.protocol import CallFromThread, Deliver, Outcome
from batcher.workers.running import run_batch

Load = Callable[[Progress], CheckedModel]

SHORT = 150e-6
PATIENCE = 200e-6
FEW = 4
"""A batch of more than `FEW` rows on a model that usually takes less than `SHORT` seconds is waited for, up to `PATIENCE`.

Such a batch is Python from end to end, so loop and worker cannot run side by side: left to themselves they wake each other for
the interpreter lock with every request that is read.
"""


LONG = 1e-3
HANDOVER = 300e-6
STUBBORN = 1000
"""Where a batch usually takes more than `LONG` seconds, the loop lets it begin, up to `HANDOVER` seconds, before it goes on.

Otherwise the thread, woken, waits for the interpreter lock until the switch interval is over, while the loop writes answers.
Whoever waited much longer waited for the lock itself: the model keeps it, and the next `STUBBORN` batches are not let begin.
"""


class InferenceThread:
    """A worker on a thread of its own."""

    def __init__(self, name: str, load: Load, progress: Progress, call_from_thread: CallFromThread) -> None:
        """Prepare a thread called `name`; `load` runs on it, `progress` is called on the reactor thread."""
        self._load = load
        self._progress = progress
        self._call_from_thread = call_from_thread
        self._batches: SimpleQueue[tuple[Batch, float] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[tuple[Batch, Outcome]] = SimpleQueue()
        self._began = Event()  # whether the batch handed over last has begun, where batches are long
        self._awaited = False  # whether the reactor thread waits, so that it need not be called
        self._usual = 0.0  # seconds of a batch, a moving average
        self._stubborn = 0  # batches that are not to be let begin
        self._rows = 0  # of the last batch
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._quitting = False
        self._loaded: Deferred[CheckedModel] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._deliver: Deliver

    def start(self, deliver: Deliver) -> Deferred[CheckedModel]:
        """Start the thread and load the model on it. Reactor thread."""
        self._deliver = deliver
        self._thread.start()
        return self._loaded

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        if self._quitting:
            raise RuntimeError("the worker takes no more batches")
        self._rows = batch.rows
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
        """Deliver the oldest batch here and now if it is likely to be done within microseconds. Reactor thread."""
        if self._usual > SHORT or self._rows <= FEW:
            return
        done = []
        self._awaited = True
        with suppress(Empty):
            done.append(self._outcomes.get(timeout=PATIENCE))
        self._awaited = False
        try:
            for batch, outcome in done:
                self._deliver(batch, outcome)
        finally:
            self._collect()  # what was put there too late for `get` and too early for `_awaited`

    def _collect(self) -> None:
        while not self._outcomes.empty():
            self._deliver(*self._outcomes.get())

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end. Reactor thread."""
        if not self._quitting:
            self._quitting = True
            self._batches.put(None)
        return self._ended

    def _run(self) -> None:
        try:
            model = self._load(self._report)
        except BaseException as err:  # a module that calls sys.exit() when it is imported is a failure like any other
            self._call_from_thread(self._loaded.errback, err)
        else:
            self._call_from_thread(self._loaded.callback, model)
            self._serve(model)
            del model
            gc.collect()  # modules of PyTorch hold on to each other
        self._call_from_thread(self._ended.callback, None)

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
            if not self._awaited:
                self._call_from_thread(self._collect)
            del task, batch, outcome  # nothing of a finished batch is kept while the thread waits

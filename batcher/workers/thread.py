"""The inference thread: holds the model, loaded once, and runs one batch after the other.

Batches cross the thread line twice, through a queue and back through `call_from_thread`; nothing else is shared. The thread
is a daemon: a model that hangs cannot be interrupted, but it never delays the end of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from time import perf_counter

from twisted.internet.defer import Deferred

from batcher.models.loading import CheckedModel, Progress
from batcher.scheduling.batch import Batch
from batcher.workers.protocol import CallFromThread, Deliver
from batcher.workers.running import run_batch

Load = Callable[[Progress], CheckedModel]


class InferenceThread:
    """A worker on a thread of its own."""

    def __init__(self, name: str, load: Load, progress: Progress, call_from_thread: CallFromThread) -> None:
        """Prepare a thread called `name`; `load` runs on it, `progress` is called on the reactor thread."""
        self._load = load
        self._progress = progress
        self._call_from_thread = call_from_thread
        self._batches: SimpleQueue[tuple[Batch, float] | None] = SimpleQueue()
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
        self._batches.put((batch, perf_counter()))

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
        self._call_from_thread(self._ended.callback, None)

    def _report(self, text: str) -> None:
        self._call_from_thread(self._progress, text)

    def _serve(self, model: CheckedModel) -> None:
        while (task := self._batches.get()) is not None:
            batch, handed_at = task
            self._call_from_thread(self._deliver, batch, run_batch(model, batch, handed_at, perf_counter))
            del task, batch  # nothing of a finished batch is kept while the thread waits

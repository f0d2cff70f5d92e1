"""A worker that comes and goes: one place of the scheduler, for one instance after the other.

Refused: workers that the scheduler adds and removes. Its places have numbers, which batches on
their way back, timers and other workers' listeners hold on to. A place that stays empty costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from batcher.batching.batch import Batch
from batcher.batching.worker import ConditionListener, Deliver, Worker
from batcher.models.protocol import LoadedModel, Progress
from batcher.workers.letting_go import let_go

MakeWorker = Callable[[Progress], Worker]
"""Makes the worker of one instance, which reports of its load. Reactor thread."""


class PassingWorker:
    """A worker that may be started again once it has ended; see `Worker`.

    Attributes:
        doing: what is done for the instance while it loads, in words.
    """

    _worker: Worker | None = None

    def __init__(self, make: MakeWorker, progress: Progress) -> None:
        """Have `make` make each instance, and `progress` hear of loads. Reactor thread."""
        self._make = make
        self._progress = progress
        self.doing = ""

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Load the model in a new instance; only if none is there. Reactor thread."""
        self._worker = worker = self._make(self._report)
        return worker.start(deliver, changed)

    def do(self, batch: Batch) -> None:
        """Hand over `batch`. Reactor thread."""
        assert self._worker is not None, "only what was started takes batches"
        self._worker.do(batch)

    def linger(self) -> None:
        """Wait for the oldest batch, as the instance does. Reactor thread."""
        if self._worker is not None:
            self._worker.linger()

    def let_begin(self) -> None:
        """Let the last batch begin, as the instance does. Reactor thread."""
        if self._worker is not None:
            self._worker.let_begin()

    def quit(self) -> Deferred[None]:
        """End the instance, if one is there, as it ends. Reactor thread."""
        if self._worker is None:
            return succeed(None)
        return self._worker.quit().addCallback(self._gone)

    def retire(self) -> None:
        """Start never more, and let go of what makes instances. Reactor thread."""
        let_go(self, "_make", "_progress")

    def _gone(self, _: None) -> None:
        """Let go of the instance, which has ended. Reactor thread."""
        self._worker = None

    def _report(self, text: str) -> None:
        """Hear what is done while the model loads. Reactor thread."""
        self.doing = text
        self._progress(text)

"""Several workers of one model, as one for its start and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.python.failure import Failure

from batcher.batching.worker import Condition, Deliver, Worker
from batcher.models.protocol import Loaded

Told = Callable[[int, bool], None]
"""Told the index of a worker that starts or stops to take batches, and which of the two."""


class Instances:
    """The workers of one model. Reactor thread.

    Attributes:
        condition: of the best of them: as long as one takes batches, the model is alive.
        reason: why, in words, the one that changed last is not alive.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        """Hold `workers`; nothing starts."""
        self._workers = workers
        self._conditions = [Condition.ALIVE] * len(workers)
        self.reason = ""

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers."""
        return iter(self._workers)

    @property
    def condition(self) -> Condition:
        """The condition of the best of them."""
        return next(condition for condition in Condition if condition in self._conditions)

    def start(self, deliver: Deliver, told: Told, changed: Callable[[], None]) -> Deferred[Loaded]:
        """Load the model in all of them.

        Fires when all are ready, fails with the first ModelLoadError.

        Args:
            deliver: gets their batches.
            told: of each that starts or stops to take batches.
            changed: called after that.
        """

        def change(index: int, condition: Condition, reason: str) -> None:
            self._conditions[index] = condition
            self.reason = reason
            told(index, condition is Condition.ALIVE)
            changed()

        loading = [
            worker.start(deliver, partial(change, index))
            for index, worker in enumerate(self._workers)
        ]
        return gatherResults(loading, consumeErrors=True).addCallbacks(
            lambda loaded: loaded[0], self._failed
        )

    def quit(self) -> Deferred[None]:
        """Have all of them end; fires when they have, which a thread that hangs never does."""
        return DeferredList([worker.quit() for worker in self._workers]).addCallback(lambda _: None)

    def _failed(self, failure: Failure) -> Failure:
        """Let those that could load the model go, and return the reason of the one that could not."""
        self.quit()
        first = failure.value
        return first.subFailure if isinstance(first, FirstError) else failure

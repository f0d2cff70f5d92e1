"""What the scheduler asks of a worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from batcher.models.loading import CheckedModel
from batcher.scheduling.batch import Batch
from batcher.spec import Array

CallFromThread = Callable[..., object]
"""Calls a function with arguments on the reactor thread, soon; the one thing that may be called from another thread."""


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        results: each part's own rows, in the order of the parts; empty if it failed.
        error: why it failed, None if it did not.
        waited: seconds that the worker had the batch before it started it.
        compute: seconds that it took, collation and splitting included.
        collating: seconds of those until its inputs were put together.
        splitting: seconds of those in which its result was cut up.
    """

    results: list[Mapping[str, Array]]
    error: BaseException | None
    waited: float
    compute: float
    collating: float = 0.0
    splitting: float = 0.0


Deliver = Callable[[Batch, Outcome], None]


class Worker(Protocol):
    """Runs one batch at a time, in the order they came. All methods: reactor thread."""

    def start(self, deliver: Deliver) -> Deferred[CheckedModel]:
        """Load the model; the Deferred fires when it is ready, or fails with ModelLoadError.

        `deliver` is called on the reactor thread, once for every batch, in order.
        """

    def do(self, batch: Batch) -> None:
        """Run `batch` after those before it."""

    def linger(self) -> None:
        """Deliver the oldest batch here and now if it is worth waiting for."""

    def let_begin(self) -> None:
        """Let the worker, which had nothing to do, begin with the batch that it was handed last."""

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end; fires when ended."""

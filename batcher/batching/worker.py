"""What the scheduler asks of a worker, and what a worker tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from batcher.batching.batch import Batch
from batcher.core.spec import Array
from batcher.models.protocol import Loaded

CallFromThread = Callable[..., object]
"""Calls a function with arguments on the reactor thread, soon.

The one thing that may be called from another thread.
"""


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        results: each part's own rows, in the order of the parts; empty if it failed.
        error: why it failed, None if it did not.
        waited: seconds that the worker had the batch before it started it.
        compute: seconds that it took, collation and splitting included.
        collating: seconds of those until its inputs were put together.
        splitting: seconds of those in which its result was cut up.
        failed: by the index of a row in the batch, why that row alone failed; what `results` holds
            of it means nothing.
    """

    results: list[Mapping[str, Array]]
    error: BaseException | None
    waited: float
    compute: float
    collating: float = 0.0
    splitting: float = 0.0
    failed: Mapping[int, BaseException] = {}


class Condition(Enum):
    """Whether a worker that has loaded its model takes batches."""

    ALIVE = "alive"
    RESTARTING = "restarting"
    """Not now; it is being started again."""
    DEAD = "dead"
    """Not any more, unless it comes back from what it hangs in."""


Deliver = Callable[[Batch, Outcome], None]
Changed = Callable[[Condition, str], None]
"""Told of a new condition of the worker, and of the reason in words. Reactor thread."""


class Worker(Protocol):
    """Runs one batch at a time, in the order they came. All methods: reactor thread."""

    def start(self, deliver: Deliver, changed: Changed) -> Deferred[Loaded]:
        """Load the model; the Deferred fires when it is ready, or fails with ModelLoadError.

        `deliver` is called on the reactor thread, once for every batch, in order. Once the model is
        loaded, `changed` is called whenever the worker stops or starts to take batches. When it
        stops, it is first told, then every batch that it holds comes back with WorkerLost, which
        says whether it had begun.
        """

    def do(self, batch: Batch) -> None:
        """Run `batch` after those before it. Only while it takes batches."""

    def linger(self) -> None:
        """Deliver the oldest batch here and now if it is worth waiting for."""

    def let_begin(self) -> None:
        """Let the worker, which had nothing to do, begin with the batch that it was handed last."""

    def quit(self) -> Deferred[None]:
        """Take no more batches, finish those there are, end.

        Fires when ended, which a thread that hangs never does.
        """

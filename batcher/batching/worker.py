"""The worker protocol: what the scheduler calls on a worker, and what a worker gives back.

scheduler                                  worker
start(deliver, changed)           ──►      loads the model, then its Deferred fires
do(batch)                         ──►      runs the batch after those before it
deliver(batch, outcome)           ◄──      once for every batch, in order
changed(condition, reason)        ◄──      whenever it stops or starts to take batches
quit()                            ──►      runs the batches that it holds, then ends
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from batcher.batching.batch import Batch
from batcher.core.device_work import DeviceWork
from batcher.core.spec import Array
from batcher.models.protocol import LoadedModel

CallFromThread = Callable[..., object]
"""Calls a function with arguments on the reactor thread, soon. Any thread.

Nothing else of the loop may be called from another thread.
"""


class Outcome(NamedTuple):
    """The result of a batch: rows or an error, and where its time went.

    Attributes:
        results: each part's own rows, in the order of the parts; empty if the batch failed.
        error: the reason of the batch's failure, None if it did not fail.
        waited: seconds from the hand-over to the worker until the batch began.
        compute: seconds that the batch took, collation and splitting included.
        collating: seconds of `compute` in which the inputs were put together.
        splitting: seconds of `compute` in which the outputs were cut up.
        failed: errors of single rows, by the index of the row in the batch. The rows in `results`
            at these places mean nothing.
        work: what batches asked of a device since the last outcome; None for nothing.
    """

    results: list[Mapping[str, Array]]
    error: BaseException | None
    waited: float
    compute: float
    collating: float = 0.0
    splitting: float = 0.0
    failed: Mapping[int, BaseException] = {}
    work: DeviceWork | None = None


class Condition(Enum):
    """Whether a worker that has loaded its model takes batches.

    ALIVE        takes batches
    RESTARTING   takes none; it is being started again
    DEAD         takes none, unless it comes back from a batch in which it hangs
    """

    ALIVE = "alive"
    RESTARTING = "restarting"
    DEAD = "dead"


Deliver = Callable[[Batch, Outcome], None]
ConditionListener = Callable[[Condition, str], None]
"""Hears of a new condition of the worker, and of the reason in words. Reactor thread."""


class Worker(Protocol):
    """Runs one batch at a time, in the order in which batches were handed over."""

    def start(self, deliver: Deliver, changed: ConditionListener) -> Deferred[LoadedModel]:
        """Load the model; the Deferred fires when it is ready, or fails with ModelLoadError.

        `deliver` is called on the reactor thread, once for every batch, in order. Once the model is
        loaded, `changed` is called whenever the worker stops or starts to take batches. A worker
        that stops calls `changed` first. Then every batch that the worker holds comes back with
        WorkerLost, which says whether the batch had begun. Reactor thread.
        """

    def do(self, batch: Batch) -> None:
        """Run `batch` after the batches before it; only while the worker is alive.

        Reactor thread.
        """

    def linger(self) -> None:
        """Wait for the oldest batch and deliver it here and now, if that is worthwhile.

        Reactor thread.
        """

    def let_begin(self) -> None:
        """Let the worker begin with the batch of the last `do`, before which it held none.

        Reactor thread.
        """

    def quit(self) -> Deferred[None]:
        """Take no more batches, run those that it holds, and end.

        The Deferred fires at the end, which a thread that hangs never reaches. Reactor thread.
        """

"""A worker's loop for a model whose batches overlap: the next one begins before one ends.

    queue     1        2                 3
    worker    begin 1  begin 2  end 1    begin 3  end 2
    device    ── batch 1 ──────│── batch 2 ──────│── batch 3

Up to `MOST` batches are under way. A second one is handed over only when it is full (`places.py`),
often while the first runs. So the thread looks for both, the next batch and the end of the first,
by turns, and sleeps in between.

What a batch took is counted from the end of the batch before it: batches run one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter

from batcher.batching.batch import Allocate, Batch, Place
from batcher.batching.worker import Outcome
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel, UnderWay
from batcher.models.device_errors import device_error
from batcher.models.lost_devices import keep_if_lost

MOST = 2
"""Batches under way: more would only wait for longer (`pipeline_depth`)."""

LOOK_S = 50e-6
"""Seconds between two looks whether a batch has ended; most on a GPU take 500 us or more."""

Tasks = SimpleQueue["tuple[Batch, float] | None"]


class _Begun:
    """A batch that has begun."""

    def __init__(self, model: CheckedModel, batch: Batch, handed_at: float) -> None:
        """Collate `batch` and ask the device for it. Inference thread."""
        self.batch = batch
        self._model = model
        self._handed_at = handed_at
        self._started = self._collated = perf_counter()
        self._error: BaseException | None = None
        self._under_way: UnderWay | None = None
        try:
            self._under_way = model.begin(self._collate, batch.rows)
        except BaseException as err:  # a model that calls sys.exit() must not end the thread either
            self._error = device_error(err)

    def _collate(self, allocate: Allocate, place: Place | None = None) -> dict[str, Array]:
        inputs = self.batch.collate(allocate, place)
        self._collated = perf_counter()
        return inputs

    def is_done(self) -> bool:
        """Return whether the end takes no wait. Inference thread."""
        if self._under_way is None:
            return True
        try:
            return self._under_way.is_done()
        except Exception:  # a lost device cannot be asked; the end raises the reason
            return True

    def end(self, earlier: float) -> Outcome:
        """Wait for the batch; `earlier` is when the one before it ended. Inference thread."""
        began = max(self._started, earlier)
        waited = began - self._handed_at
        if self._under_way is None:
            return Outcome([], self._error, waited, self._collated - self._started)
        try:
            outputs, failed = self._under_way.result()
            predicted = perf_counter()
            results = self.batch.split(outputs)
        except BaseException as err:
            return Outcome([], device_error(err), waited, perf_counter() - began)
        ended = perf_counter()
        collating, compute, splitting = (
            self._collated - self._started,
            ended - began,
            ended - predicted,
        )
        work = self._model.work_done()
        return Outcome(results, None, waited, compute, collating, splitting, failed, work)


def serve_overlapped(
    model: CheckedModel,
    tasks: Tasks,
    begun: Callable[[], None],
    put: Callable[[Batch, Outcome], None],
) -> None:
    """Run batches until the order to quit comes, None, or the device is lost.

    `begun` hears of each batch that was taken up, `put` takes each that is done. Inference thread.
    """
    under_way: deque[_Begun] = deque()
    is_open, ended = True, 0.0
    while True:
        is_open = is_open and _begin_some(model, tasks, under_way, begun)
        if not under_way:
            return
        first = under_way.popleft()
        outcome = first.end(ended)
        ended = perf_counter()
        is_lost = keep_if_lost(outcome.error, first, *under_way)
        put(first.batch, outcome)
        if is_lost:
            return
        del first, outcome  # nothing of a finished batch is kept while the thread waits


def _begin_some(
    model: CheckedModel, tasks: Tasks, under_way: deque[_Begun], begun: Callable[[], None]
) -> bool:
    """Begin batches until the first one under way has ended, or `MOST` are under way.

    Return whether more batches may come. Inference thread.
    """
    while len(under_way) < MOST:
        try:
            task = tasks.get(timeout=LOOK_S) if under_way else tasks.get()
        except Empty:
            pass
        else:
            if task is None:
                return False
            begun()
            under_way.append(_Begun(model, *task))
        if under_way[0].is_done():
            break
    return True

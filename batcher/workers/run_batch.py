"""One batch on one model: the step that every kind of worker in this process has in common."""

from __future__ import annotations

from collections.abc import Callable

from batcher.batching.batch import Allocate, Batch, Place
from batcher.batching.worker import Outcome
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error


def run_batch(
    model: CheckedModel, batch: Batch, handed_at: float, seconds: Callable[[], float]
) -> Outcome:
    """Collate, predict and split; whatever the model raises becomes the outcome.

    `handed_at` is when the worker got the batch, by the clock `seconds`. Inference thread.
    """
    started = collated = seconds()
    waited = started - handed_at

    def collate(allocate: Allocate, place: Place | None = None) -> dict[str, Array]:
        nonlocal collated
        inputs = batch.collate(allocate, place)
        collated = seconds()
        return inputs

    try:
        outputs, failed = model.predict(collate, batch.rows)
        predicted = seconds()
        results = batch.split(outputs)
    except BaseException as err:  # a model that calls sys.exit() must not end the thread either
        return Outcome([], device_error(err), waited, seconds() - started)
    ended = seconds()
    collating, compute, splitting = collated - started, ended - started, ended - predicted
    return Outcome(results, None, waited, compute, collating, splitting, failed, model.work_done())

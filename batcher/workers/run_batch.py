"""One batch on one model: the step that every kind of worker has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batcher.batching.batch import Allocate, Batch
from batcher.batching.worker import Outcome
from batcher.core.spec import Array
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error


def run_batch(
    model: CheckedModel, batch: Batch, handed_at: float, seconds: Callable[[], float]
) -> Outcome:
    """Collate, predict and split; whatever the model raises becomes the outcome. Inference thread.

    Args:
        model: runs it.
        batch: what to run.
        handed_at: when the worker got it, by `seconds`.
        seconds: a clock.
    """
    started = collated = seconds()
    results: list[Mapping[str, Array]] = []

    def collate(allocate: Allocate) -> dict[str, Array]:
        nonlocal collated
        inputs = batch.collate(allocate)
        collated = seconds()
        return inputs

    try:
        outputs, failed = model.predict(collate, batch.rows)
        predicted = seconds()
        results.extend(batch.split(outputs))
    except BaseException as err:  # a model that calls sys.exit() must not end the thread either
        return Outcome([], device_error(err), started - handed_at, seconds() - started)
    ended = seconds()
    return Outcome(
        results,
        None,
        started - handed_at,
        ended - started,
        collated - started,
        ended - predicted,
        failed,
    )

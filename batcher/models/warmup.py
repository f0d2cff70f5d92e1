"""Warm-up: a loaded model runs blank rows before the first request, so no client pays for it.

The first run of a batch size is slow: kernels are chosen and memory is allocated. So warm-up runs
rows of zeros and empty texts in batches of 1, the largest size, and the powers of two between. With
a largest batch of 6 rows these are 1, 2, 4 and 6. The runs show three more things about the model:

- whether the model keeps its contract: if not, the model is not served;
- how many seconds a batch takes, by its rows: the scheduler's cost curve begins with these;
- whether outputs are fresh memory: if so, `CheckedModel` need not copy outputs.

The rows pass `preprocess` first, and a batch has as many of the rows that the hook has made: those
are the rows that the model computes (`blank_rows.py`).

A model with a free axis and no `warmup_shape` for that axis is not warmed up: the model might not
be able to take a size that warm-up chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import perf_counter

import numpy as np

from batcher.core.error_text import message
from batcher.core.ragged import concatenated, copied
from batcher.core.spec import Array
from batcher.errors import ModelLoadError, OutOfMemory
from batcher.models.blank_rows import BlankBatch, unsized_inputs
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.models.protocol import Arrays, Model, Progress

OPERATORS_BEFORE_HINT = 20
"""Operators a batch; a model with more gets a hint at start.

Under load each operator may wait for the interpreter lock, so a batch of many operators is slow.
"""

_WANTS_GRADIENTS = re.compile("require(s_)? ?grad|[Ii]nference tensor")
"""PyTorch's errors where gradients are computed in inference mode."""


def warmup_sizes(max_batch_size: int) -> list[int]:
    """Return 1, the largest batch, and the powers of two between them, ascending. Any thread."""
    sizes = {1, max_batch_size}
    size = 2
    while size < max_batch_size:
        sizes.add(size)
        size *= 2
    return sorted(sizes)


def warm_up(model: CheckedModel, max_batch_size: int, progress: Progress) -> None:
    """Run `model` on blank rows at each warm-up size, and note what the runs show.

    Raises:
        ModelLoadError: the model fails on blank rows, or its outputs break its specification.

    Inference thread.
    """
    if reason := unsized_inputs(model.spec):
        progress(f"warm-up skipped: {reason}")
        return
    shared = False
    fitted, rows_each = 0, 1
    for size in warmup_sizes(max_batch_size):
        progress(f"warming up, batch size {size}")
        with _explained(size, fitted):
            batch = BlankBatch(model.model, size, rows_each)
            # Twice, since the first run pays for whatever is made once. One row a third time: a
            # model that takes two buffers in turn comes back to the first one only then.
            shared = _run_size(model, batch, 3 if size == 1 else 2) or shared
        fitted, rows_each = size, batch.rows_each
    if rows_each > max_batch_size:
        _run_in_pieces(model.model, rows_each, max_batch_size)
    model.copies_outputs = shared
    _hint_at_operators(model.model, progress)


@contextmanager
def _explained(rows: int, fitted: int) -> Iterator[None]:
    """Raise whatever a batch of `rows` rows raises as a ModelLoadError that names the batch.

    `fitted` are the rows of the last batch that was smaller, 0 without one.

    Inference thread.
    """
    try:
        yield
    # Also SystemExit: a model that calls sys.exit() must not end the thread.
    except (Exception, SystemExit) as err:
        reason = f"{type(err).__name__}: {message(err)}".removesuffix(": ")
        raise ModelLoadError(
            f"warm-up with batch size {rows} failed: {reason}{_advice(err, fitted)}"
        ) from err


def _advice(error: BaseException, fitted: int) -> str:
    """Return what an author can do about `error`, if that is known. Any thread."""
    if fitted and isinstance(device_error(error), OutOfMemory):
        return f"; {fitted} rows fit: set max_batch_size to at most {fitted}"
    if isinstance(error, RuntimeError) and _WANTS_GRADIENTS.search(str(error)):
        return "; if the model computes gradients, write `gradients: true` in model.yaml"
    return ""


def _run_size(model: CheckedModel, batch: BlankBatch, runs: int) -> bool:
    """Run `batch` so many times; return whether the outputs of these runs share memory.

    Only outputs of these runs are held, since those of the largest batches may be large.

    Inference thread.
    """
    earlier: list[Array] = []
    shared = False
    for _ in range(runs):
        outputs = _run_once(model, batch)
        shared = shared or _share_memory(outputs, earlier)
        earlier += outputs.values()
    return shared


def _run_once(model: CheckedModel, batch: BlankBatch) -> dict[str, Array]:
    """Run and time `batch`, check the outputs, and return them. Inference thread."""
    inputs = batch.inputs()
    started = perf_counter()
    outputs = model.model.predict(inputs)
    seconds = perf_counter() - started
    model.timings[batch.rows] = min(seconds, model.timings.get(batch.rows, inf))
    batch.check(outputs)
    return outputs


def _run_in_pieces(model: Model, rows: int, largest: int) -> None:
    """Check a request of one row that becomes more rows, `rows`, than the `largest` batch has.

    Inference thread.
    """
    with _explained(rows, largest):
        batch = BlankBatch(model, rows, rows)
        inputs = batch.inputs()
        pieces = []
        for start in range(0, rows, largest):
            piece = {name: array[start : start + largest] for name, array in inputs.items()}
            outputs = model.predict(piece)
            pieces.append({name: copied(array) for name, array in outputs.items()})
        batch.check({name: concatenated([piece[name] for piece in pieces]) for name in pieces[0]})


def _share_memory(outputs: Arrays, earlier: list[Array]) -> bool:
    """Return whether one of `outputs` may lie in memory of an `earlier` output. Any thread."""
    return any(np.may_share_memory(new, old) for new in outputs.values() for old in earlier)


def _hint_at_operators(model: Model, progress: Progress) -> None:
    """Report a hint to `progress` if a batch takes many operators. Inference thread."""
    with _explained(1, 0):
        operators = model.operators(BlankBatch(model, 1).inputs())
    if operators > OPERATORS_BEFORE_HINT:
        progress(
            f"hint: {operators} operators a batch, each waiting for the interpreter lock: try "
            "`compile: aoti`"
        )

"""Warm-up: one batch of each size before the first request, so that no client pays for first runs."""

from __future__ import annotations

from math import inf
from time import perf_counter

import numpy as np

from batcher.core.error_text import message
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_outputs
from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel, _check_rows
from batcher.models.protocol import Arrays, Model, Progress

MANY_OPERATORS = 20
"""More than so many operators a batch are told of at start: under load each may wait for the
interpreter lock.
"""


def warmup_sizes(max_batch_size: int) -> list[int]:
    """Return 1, the largest batch, and the powers of two between them, ascending."""
    sizes = {1, max_batch_size}
    size = 2
    while size < max_batch_size:
        sizes.add(size)
        size *= 2
    return sorted(sizes)


def warm_up(checked: CheckedModel, max_batch_size: int, progress: Progress) -> None:
    """Run a loaded model on blank rows at each warm-up size, and learn whether its outputs are fresh memory. Inference thread.

    Raises:
        ModelLoadError: it fails on them, or its outputs are not what its specification promises.
    """
    if unsized := unsized_inputs(checked.spec):
        progress(f"warm-up skipped: {unsized}")
        return
    earlier: list[Array] = []
    shared = False
    sizes = warmup_sizes(max_batch_size)
    twice = [
        size for size in sizes for _ in range(2)
    ]  # the first time is that of whatever is made once
    for size in (*twice, sizes[-1]):  # the largest more often, so that memory given again is seen
        progress(f"warming up, batch size {size}")
        try:
            inputs = _blank_inputs(checked.model, size)
            began = perf_counter()
            outputs = checked.model.predict(inputs)
            checked.timings[size] = min(perf_counter() - began, checked.timings.get(size, inf))
            _check_warmup(checked, outputs, size)
        except (Exception, SystemExit) as err:
            raise ModelLoadError(
                f"warm-up with batch size {size} failed: {type(err).__name__}: {message(err)}"
            ) from err
        shared = shared or any(
            np.may_share_memory(new, old) for new in outputs.values() for old in earlier
        )
        earlier += outputs.values()
    checked.copies_outputs = shared
    operators = checked.model.operators()
    if operators > MANY_OPERATORS:
        progress(
            f"hint: {operators} operators a batch, each waiting for the interpreter lock: try "
            "`compile: aoti`"
        )


def _check_warmup(checked: CheckedModel, outputs: Arrays, rows: int) -> None:
    if checked.model.postprocess is not None:
        _check_rows(checked.spec.name, outputs, rows)
        outputs = {
            name: np.asarray(value) for name, value in checked.model.postprocess(outputs).items()
        }
    check_outputs(checked.spec, outputs, rows)


def unsized_inputs(spec: ModelSpec) -> str:
    """Return why there are no blank rows for the model `spec`, empty if there are."""
    free = [
        tensor.name for tensor in spec.inputs if tensor.free_axes and tensor.warmup_shape is None
    ]
    return f"no warmup_shape for the free axes of {', '.join(free)}" if free else ""


def blank_rows(spec: ModelSpec, rows: int) -> dict[str, Array]:
    """Return inputs of zeros and empty texts for the model `spec`, whose inputs are sized.

    Any thread.
    """
    return {tensor.name: _blank(tensor, rows) for tensor in spec.inputs}


def _blank_inputs(model: Model, rows: int) -> dict[str, Array]:
    blank = blank_rows(model.spec, rows)
    prepared = model.preprocess(blank) if model.preprocess is not None else blank
    inputs = {}
    for name, value in prepared.items():
        array = np.asarray(value)
        inputs[name] = model.allocate(name, array.shape, array.dtype)
        inputs[name][...] = array
    return inputs


def _blank(tensor: TensorSpec, rows: int) -> Array:
    array: Array = np.zeros((rows, *(tensor.warmup_shape or tensor.shape)), tensor.datatype.numpy)
    if tensor.datatype.name == "BYTES":
        array.fill(b"")
    return array

"""Warm-up: a loaded model runs blank rows before the first request, so no client pays for it.

The first run of a batch size is slow: kernels are chosen and memory is allocated. So warm-up runs
rows of zeros and empty texts in batches of 1, the largest size, and the powers of two between. With
a largest batch of 6 rows these are 1, 2, 4 and 6. The runs show three more things about the model:

- whether the model keeps its contract: if not, the model is not served;
- how many seconds a batch takes, by its rows: the scheduler's cost curve begins with these;
- whether outputs are fresh memory: if so, `CheckedModel` need not copy outputs.

A model with a free axis and no `warmup_shape` for that axis is not warmed up: the model might not
be able to take a size that warm-up chose.
"""

from __future__ import annotations

from math import inf
from time import perf_counter

import numpy as np

from batcher.core.error_text import message
from batcher.core.spec import Array, ModelSpec, TensorSpec, check_outputs
from batcher.errors import ModelLoadError, OutOfMemory
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.models.hook_contract import as_arrays, check_raw_outputs
from batcher.models.protocol import Arrays, Model, Progress

OPERATORS_BEFORE_HINT = 20
"""Operators a batch; a model with more gets a hint at start.

Under load each operator may wait for the interpreter lock, so a batch of many operators is slow.
"""


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
    fitted = 0
    for size in warmup_sizes(max_batch_size):
        progress(f"warming up, batch size {size}")
        # Twice, since the first run pays for whatever is made once. One row a third time: a model
        # that takes two buffers in turn comes back to the first one only then.
        shared = _run_size(model, size, 3 if size == 1 else 2, fitted) or shared
        fitted = size
    model.copies_outputs = shared
    _hint_at_operators(model.model, progress)


def unsized_inputs(spec: ModelSpec) -> str:
    """Return why the model `spec` has no blank rows; empty if it has. Any thread."""
    free = [
        tensor.name for tensor in spec.inputs if tensor.free_axes and tensor.warmup_shape is None
    ]
    return f"no warmup_shape for the free axes of {', '.join(free)}" if free else ""


def blank_rows(spec: ModelSpec, rows: int) -> dict[str, Array]:
    """Return inputs of zeros and empty texts for the model `spec`, all of whose axes have sizes.

    Any thread.
    """
    return {tensor.name: _blank(tensor, rows) for tensor in spec.inputs}


def _run_size(model: CheckedModel, rows: int, runs: int, fitted: int) -> bool:
    """Run `runs` batches of `rows` blank rows; return whether their outputs share memory.

    Only outputs of these runs are held, since those of the largest batches may be large. `fitted`
    are the rows of the last batch that was smaller, 0 without one.

    Inference thread.
    """
    earlier: list[Array] = []
    shared = False
    for _ in range(runs):
        outputs = _run_blank(model, rows, fitted)
        shared = shared or _share_memory(outputs, earlier)
        earlier += outputs.values()
    return shared


def _run_blank(model: CheckedModel, rows: int, fitted: int) -> dict[str, Array]:
    """Run one batch of blank rows, check and time it, and return the outputs. Inference thread."""
    try:
        inputs = _blank_inputs(model.model, rows)
        started = perf_counter()
        outputs = model.model.predict(inputs)
        seconds = perf_counter() - started
        model.timings[rows] = min(seconds, model.timings.get(rows, inf))
        _check(model, outputs, rows)
    # Also SystemExit: a model that calls sys.exit() must not end the thread.
    except (Exception, SystemExit) as err:
        full = fitted and isinstance(device_error(err), OutOfMemory)
        advice = f"; {fitted} rows fit: set max_batch_size to at most {fitted}" if full else ""
        reason = f"{type(err).__name__}: {message(err)}".removesuffix(": ")
        raise ModelLoadError(f"warm-up with batch size {rows} failed: {reason}{advice}") from err
    return outputs


def _blank_inputs(model: Model, rows: int) -> dict[str, Array]:
    """Return blank rows in buffers of `model`, after its `preprocess`. Inference thread."""
    blank = blank_rows(model.spec, rows)
    prepared = as_arrays(model.preprocess(blank)) if model.preprocess is not None else blank
    inputs = {}
    for name, array in prepared.items():
        inputs[name] = model.allocate(name, array.shape, array.dtype)
        inputs[name][...] = array
    return inputs


def _check(model: CheckedModel, outputs: Arrays, rows: int) -> None:
    """Check `outputs` of a batch of `rows` rows, after `postprocess` if there is one.

    Inference thread.
    """
    postprocess = model.model.postprocess
    if postprocess is not None:
        check_raw_outputs(model.spec.name, outputs, rows)
        outputs = as_arrays(postprocess(outputs))
    check_outputs(model.spec, outputs, rows)


def _share_memory(outputs: Arrays, earlier: list[Array]) -> bool:
    """Return whether one of `outputs` may lie in memory of an `earlier` output. Any thread."""
    return any(np.may_share_memory(new, old) for new in outputs.values() for old in earlier)


def _hint_at_operators(model: Model, progress: Progress) -> None:
    """Report a hint to `progress` if a batch takes many operators. Inference thread."""
    operators = model.operators()
    if operators > OPERATORS_BEFORE_HINT:
        progress(
            f"hint: {operators} operators a batch, each waiting for the interpreter lock: try "
            "`compile: aoti`"
        )


def _blank(tensor: TensorSpec, rows: int) -> Array:
    """Return `rows` blank rows of one input. Any thread."""
    array: Array = np.zeros((rows, *(tensor.warmup_shape or tensor.shape)), tensor.datatype.numpy)
    if tensor.datatype.name == "BYTES":
        array.fill(b"")
    return array

"""Warm-up: a loaded model runs a few batches before the first request, so no client pays for it.

The first run of a batch size is slow: kernels are chosen and memory is allocated. So warm-up runs
the rows of the model's sample (`sample.py`), or else rows of zeros and empty texts, in batches of
1, the largest size, and the powers of two between. With a largest batch of 6 rows these are 1, 2, 4
and 6. The runs show more about the model:

- whether the model keeps its contract, without optional inputs, too: if not, the model is not
  served;
- how many seconds a batch takes, by its rows: the scheduler's cost curve begins with these;
- whether outputs are fresh memory: if so, `CheckedModel` need not copy outputs;
- which batches fit into the memory: the scheduler's ceiling begins below the first that does not;
- whether a row costs more in a larger batch, as in models that fill rows up to the longest one: if
  so, larger batches are neither tried nor sent;
- whether rows of a batch meet in an output (`batch_axes.py`): if so, each row runs alone.

Example of the last point, with batches of up to 16 rows:

    rows of the batch     1        2        4        8
    seconds               0.20     0.30     0.50     1.60
    seconds for a row     0.20     0.15     0.125    0.20, more than 1.25 * 0.125

Warm-up ends there, and batches have at most 4 rows.

Where rows of different lengths are padded, the seconds for an element are compared instead of those
for a row. Rows of a sample may differ in length, and a larger batch is padded to a longer row.

There one batch runs whose rows differ in length: its outputs show whether they can be cut again
(`uneven_lengths.py`). And some batches more run, of the lengths in `warmup_lengths` or `pad_sizes`,
so that code which is compiled for one length is there, and the scheduler knows what lengths cost. A
length ends with the first batch that does not fit, or that takes `COSTLY_BATCH_S`: long rows would
make warm-up long.

The rows pass `preprocess` first, and a batch has as many of the rows that the hook has made: those
are the rows that the model computes (`blank_rows.py`).

A model without a sample, with a free axis and no `warmup_shape` for that axis, is not warmed up:
the model might not be able to take a size that warm-up chose.
"""

from __future__ import annotations

from math import inf
from time import perf_counter

import numpy as np

from batcher.core.error_text import message
from batcher.core.padding import Padding
from batcher.core.ragged import concatenated, copied
from batcher.core.spec import Array
from batcher.errors import DeviceLost, ModelContractError, ModelLoadError, OutOfMemory
from batcher.models.batch_axes import BatchAxes
from batcher.models.blank_rows import NothingPrepared, WarmupBatch, unsized_inputs
from batcher.models.checked import CheckedModel
from batcher.models.device_errors import device_error
from batcher.models.hook_turns import new_notes
from batcher.models.lacking import check_lacking, told_of_lacking
from batcher.models.own_code import with_place
from batcher.models.protocol import Arrays, Progress
from batcher.models.uneven_lengths import check_uneven_lengths
from batcher.models.uneven_texts import uneven_texts_note
from batcher.models.warmup_errors import explained

OPERATORS_BEFORE_HINT = 20
"""Operators a batch; a model with more gets a hint at start.

Under load each operator may wait for the interpreter lock, so a batch of many operators is slow.
"""

COSTLY_BATCH_S = 0.25
"""Seconds of a batch from which its rows are held against those of smaller batches. A shorter time
is easily doubled by something else that runs, and warm-up is quick anyhow.
"""

WORTHWHILE = 1.25
"""How many times the least seconds for a row the rows of a larger batch may take: less is noise."""

SHOWN_BATCH_S = 1.0
"""Seconds of a batch from which each further size is a line of its own in the log."""


def warmup_sizes(max_batch_size: int) -> list[int]:
    """Return 1, the largest batch, and the powers of two between them, ascending. Any thread."""
    sizes = {1, max_batch_size}
    size = 2
    while size < max_batch_size:
        sizes.add(size)
        size *= 2
    return sorted(sizes)


def _sizes_of(model: CheckedModel, largest: int) -> list[int]:
    """Return the rows of the batches that warm-up runs: all that a model takes, or some."""
    taken = [size for size in model.model.run_sizes.sizes if size <= largest]
    return taken or warmup_sizes(largest)


def warm_up(
    model: CheckedModel, max_batch_size: int, progress: Progress, max_elements: int | None = None
) -> None:
    """Run `model` at each warm-up size and length (there up to `max_elements`); note what it shows.

    Raises:
        ModelLoadError: the model fails on rows of warm-up, or its outputs break its specification.

    Inference thread.
    """
    max_batch_size = model.largest(max_batch_size)
    if model.sample is None and (reason := unsized_inputs(model.spec)):
        progress(f"warm-up skipped: {reason}")
        return
    try:
        rows_each = _run_sizes(model, max_batch_size, progress)
    except NothingPrepared as err:
        progress(f"warm-up skipped: {err}")
        return
    largest = model.largest(max_batch_size)
    _run_in_pieces(model, rows_each, largest)
    check_lacking(model, _sizes_of(model, largest)[0], rows_each, progress)
    _run_uneven(model, largest, progress)
    _run_lengths(model, largest, max_elements, rows_each, progress)
    _tell_hints(model, progress)


def _run_sizes(model: CheckedModel, max_batch_size: int, progress: Progress) -> int:
    """Run each warm-up size; return the rows that a row becomes. Inference thread."""
    shared, rows_each, axes = False, 1, BatchAxes()
    elements: dict[int, int] = {}
    for size in _sizes_of(model, max_batch_size):
        progress(_step(model, size))
        try:
            fitted = max(model.timings, default=0)
            with told_of_lacking(model), explained(size, fitted, native=_is_native(model)):
                batch = _batch(model, size, rows_each)
                # Twice, since the first run pays for whatever is made once. One row a third time:
                # a model that takes two buffers in turn comes back to the first one only then.
                shared = _run_size(model, batch, 3 if size == 1 else 2, axes) or shared
                elements[size] = size * max(batch.elements, 1)
                worthwhile = _worthwhile(model, elements, batch.rows_each)
        except OutOfMemory as err:
            _note_overflow(model, size, err, progress)
            break
        rows_each = batch.rows_each
        if worthwhile < size:
            _note_costs(model, worthwhile, size, progress)
            break
    model.note_sharing(shared)
    _note_meeting(model, axes.output, progress)
    return rows_each


def _run_lengths(
    model: CheckedModel, largest: int, max_elements: int | None, rows_each: int, progress: Progress
) -> None:
    """Run batches of further lengths; `rows_each` as in WarmupBatch. Inference thread."""
    for length in Padding(model.spec).warmup_lengths if model.spec.is_padded else ():
        progress(f"warming up, length {length}")
        for size in _sizes_of(model, largest):
            try:
                with explained(size, length=f"length {length}"):
                    batch = _batch(model, size, rows_each, length)
                    if not _run_of_length(model, batch, max_elements):
                        break
            except OutOfMemory as err:
                progress(
                    f"note: a batch of {size} rows of length {length} does not fit into the memory "
                    f"({err}). Set max_batch_elements lower"
                )
                break


def _run_uneven(model: CheckedModel, largest: int, progress: Progress) -> None:
    """Check the outputs of a batch of other lengths, whose rows differ in length.

    Raises:
        ModelLoadError: an output cannot be cut to the lengths of rows, or holds padding.

    Inference thread.
    """
    if not model.spec.is_padded:
        return
    progress("warming up, rows of different lengths")
    try:
        with explained(min(largest, 2), length="rows of different lengths"):
            note = check_uneven_lengths(model.model, largest, model.sample)
        if note:
            progress(f"note: {note}")
    except OutOfMemory:
        pass  # said where a length is named that clients will send
    except ModelLoadError as err:
        cause = err.__cause__
        if cause is None or isinstance(device_error(cause), ModelContractError | DeviceLost):
            raise
        # A model may take no rows that are shorter than the author's own.
        progress(f"note: requests of other lengths than the rows of warm-up may fail: {err}")


def _run_of_length(model: CheckedModel, batch: WarmupBatch, max_elements: int | None) -> bool:
    """Run `batch`, unless its size and length have run, or it has more than `max_elements`.

    Return whether larger batches of that length are to run. Inference thread.
    """
    rows, key = batch.rows, (batch.rows, batch.elements)
    most = max_elements or rows * batch.elements
    if key in model.length_timings or (rows > 1 and rows * batch.elements > most):
        return False
    model.note_sharing(_run_size(model, batch, 2))
    return model.length_timings[key] < COSTLY_BATCH_S


def _batch(model: CheckedModel, rows: int, rows_each: int = 1, length: int = 0) -> WarmupBatch:
    """Return a batch of `rows` rows; the others as in WarmupBatch. Inference thread."""
    return WarmupBatch(model.model, rows, rows_each, model.sample, length)


def _step(model: CheckedModel, rows: int) -> str:
    """Return what is done next, in words: batches of `rows` rows are run. Any thread."""
    if not model.timings or model.timings[max(model.timings)] < SHOWN_BATCH_S:
        return f"warming up, batch size {rows}"
    last, seconds = max(model.timings.items())
    return f"warming up with {rows} rows; a batch of {last} rows took {seconds:.1f} s"


def _note_overflow(model: CheckedModel, rows: int, error: OutOfMemory, progress: Progress) -> None:
    """Note that a batch of `rows` rows does not fit into the memory, though smaller ones do.

    Raises:
        ModelLoadError: there is no smaller one.

    Inference thread.
    """
    if not model.timings:
        raise ModelLoadError(f"warm-up: one row does not fit into the memory: {error}") from error
    model.overflow_rows, fitted = rows, max(model.timings)
    reason = with_place(message(error), error)
    progress(
        f"note: a batch of {rows} rows does not fit into the memory ({reason}). Batches begin with "
        f"{fitted} rows; set max_batch_size to {fitted} to keep them there"
    )


def _note_costs(model: CheckedModel, rows: int, tried: int, progress: Progress) -> None:
    """Note that no batch larger than `rows` rows is worth running. Inference thread."""
    model.limit(rows)
    each, more = model.timings[rows] / rows, model.timings[tried] / tried
    progress(
        f"note: batches have at most {rows} rows, since a row costs more in larger ones: "
        f"{more:.3g} s in a batch of {tried} rows, {each:.3g} s in one of {rows}. Set "
        f"max_batch_size to {rows} to have a quicker warm-up"
    )


def _note_meeting(model: CheckedModel, output: str, progress: Progress) -> None:
    """Note that rows of a batch meet in `output`, if there is one, so that each runs alone.

    Several rows of a sample may differ in length, and prove nothing. Inference thread.
    """
    if not output or any(len(rows) > 1 for rows in (model.sample or {}).values()):
        return
    model.limit(1)
    progress(
        f"note: batches have one row: an axis of output {output!r} is as long as the batch, where "
        "rows would meet. Set max_batch_size to 1 to have a quicker warm-up"
    )


def _worthwhile(model: CheckedModel, elements: dict[int, int], rows_each: int) -> int:
    """Return the rows of the largest batch that is worth running, of those that have run.

    `elements` has, by the rows of each batch that has run, its elements with the padding; where
    rows are not padded, its rows. Inference thread.
    """
    seconds, rows = model.timings, max(elements)
    if seconds[rows] < COSTLY_BATCH_S:
        return rows
    each = {size: seconds[size] / count for size, count in elements.items()}
    cheapest = min(each, key=each.__getitem__)
    if each[rows] <= WORTHWHILE * each[cheapest]:
        return rows
    # Once more, now: the machine may have been busier when the larger batch ran.
    now, _ = _run_timed(model, _batch(model, cheapest, rows_each))
    if each[rows] <= WORTHWHILE * now / elements[cheapest]:
        return rows
    return max(size for size in each if each[size] <= WORTHWHILE * each[cheapest])


def _is_native(model: CheckedModel) -> bool:
    """Return whether code of a library runs zeros and empty texts. Inference thread."""
    return model.model.one_call and model.sample is None


def _run_size(
    model: CheckedModel, batch: WarmupBatch, runs: int, axes: BatchAxes | None = None
) -> bool:
    """Run `batch` so many times; return whether the outputs of these runs share memory.

    `axes` takes note of their shapes. Only outputs of these runs are held, since those of the
    largest batches may be large.

    Inference thread.
    """
    earlier: list[Array] = []
    shared = False
    for _ in range(runs):
        outputs = _run_once(model, batch)
        if axes is not None:
            axes.see(outputs)
        shared = shared or _share_memory(outputs, earlier)
        earlier += outputs.values()
    return shared


def _run_once(model: CheckedModel, batch: WarmupBatch) -> dict[str, Array]:
    """Run and time `batch`, check the outputs, and return them. Inference thread."""
    seconds, outputs = _run_timed(model, batch)
    batch.check(outputs)
    if not batch.length:
        model.timings[batch.rows] = min(seconds, model.timings.get(batch.rows, inf))
    if batch.elements:
        key = batch.rows, batch.elements
        model.length_timings[key] = min(seconds, model.length_timings.get(key, inf))
    return outputs


def _run_timed(model: CheckedModel, batch: WarmupBatch) -> tuple[float, dict[str, Array]]:
    """Run `batch`; return the seconds that it took, and the outputs. Inference thread."""
    inputs = batch.inputs()
    started = perf_counter()
    outputs = model.model.predict(inputs)
    return perf_counter() - started, outputs


def _run_in_pieces(model: CheckedModel, rows: int, largest: int) -> None:
    """Check a request of one row that becomes more rows, `rows`, than the `largest` batch has.

    Inference thread.
    """
    if rows <= largest:
        return
    with explained(rows):
        batch = _batch(model, rows, rows)
        inputs = batch.inputs()
        pieces = []
        for start in range(0, rows, largest):
            piece = {name: array[start : start + largest] for name, array in inputs.items()}
            outputs = model.model.predict(piece)
            pieces.append({name: copied(array) for name, array in outputs.items()})
        batch.check({name: concatenated([piece[name] for piece in pieces]) for name in pieces[0]})


def _share_memory(outputs: Arrays, earlier: list[Array]) -> bool:
    """Return whether one of `outputs` may lie in memory of an `earlier` output. Any thread."""
    return any(np.may_share_memory(new, old) for new in outputs.values() for old in earlier)


def _tell_hints(model: CheckedModel, progress: Progress) -> None:
    """Report to `progress` what a model that works could do better. Inference thread."""
    if note := uneven_texts_note(model.model, model.sample):
        progress(note)
    for note in new_notes(model.model):
        progress(f"note: {note}")
    _hint_at_operators(model, progress)


def _hint_at_operators(checked: CheckedModel, progress: Progress) -> None:
    """Report a hint to `progress` if a batch takes many operators, and the model can be compiled.

    Compiled code does not check its inputs, so their shapes must be those of the specification.

    Inference thread.
    """
    model = checked.model
    if model.preprocess is not None or any(tensor.free_axes for tensor in model.spec.inputs):
        return
    with explained(1):
        operators = model.operators(_batch(checked, 1).inputs())
    if operators > OPERATORS_BEFORE_HINT:
        progress(
            f"hint: {operators} operators a batch, each waiting for the interpreter lock: try "
            "`compile: aoti`"
        )

"""A loaded model whose every answer is checked before it leaves the inference thread.

A model is code of somebody else. `CheckedModel` stands between a worker and the model, and keeps
four faults of a model away from clients:

    fault of the model                                       what CheckedModel does
    outputs are not what `model.yaml` promises, or rows      casts what can be cast, else fails the
        out do not equal rows in                                 row or the batch (`fitting.py`)
    an error of the server's own is raised (`QueueFull`)     replaces the error with a ModelError
    batches have their outputs in the same memory            copies the outputs
    a hook has its results in the same memory                has hooks take turns, and copies
                                                             the results (`hook_turns.py`)

Outputs in the same memory are no fault in a program that runs one batch after the other: a
preallocated output is faster. But here the loop still writes the answers of one batch while the
model computes the next. Warm-up (`warmup.py`) runs batches in a row and learns whether their
outputs share memory. Until warm-up has shown that outputs are fresh, they are copied; and for good
where the code of the model is seen to write into what it keeps: only some batches may do that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from batcher.core.device_work import DeviceWork
from batcher.core.ragged import copied
from batcher.core.spec import Array
from batcher.errors import BatcherError
from batcher.models.fitting import fit_outputs, fit_raw_outputs
from batcher.models.hook_turns import turns_of, watch_hooks
from batcher.models.model_errors import allowed_from_model
from batcher.models.protocol import Arrays, LoadedModel, Model, PartialOutputs, Running
from batcher.models.row_errors import RowErrors, non_finite_rows
from batcher.models.sample import Sample, repeated

Made = TypeVar("Made")


class CheckedModel:
    """A loaded model; each answer keeps the contract, and no later batch changes the answer.

    Attributes:
        model: the model itself.
        spec: name, version and tensors of the model.
        keeps_written: whether its code is seen to write into what it keeps, outputs perhaps.
        shares_outputs: whether batches of warm-up had outputs in the same memory.
        copies_outputs: whether outputs are copied, since the model may use their memory again.
        timings: seconds that warm-up took for a batch, by the rows of the batch.
        length_timings: seconds that warm-up took for a batch, by its rows and the elements of a
            row, where rows of different lengths are padded.
        overflow_rows: rows of the batch that did not fit into the memory at warm-up; 0 if all did.
        sample: rows that the model's author has named; None if there are none.
    """

    def __init__(self, model: Model, finite_outputs: bool = False) -> None:
        """Wrap `model`, which is loaded.

        With `finite_outputs`, rows with NaN or infinity in their outputs fail. Clients of a model
        with `postprocess` get what the hook returns, so there the numbers are checked after the
        hook, by `hook_contract.py`, and not here.

        Inference thread.
        """
        self.keeps_written = watch_hooks(model)
        self.model = model
        self._finite_outputs = finite_outputs
        self.spec = model.spec
        self.shares_outputs = False
        self.copies_outputs = True
        self.timings: dict[int, float] = {}
        self.length_timings: dict[tuple[int, int], float] = {}
        self.overflow_rows = 0
        self.sample: Sample | None = None
        self._max_rows = model.max_rows
        self._work = model.work
        self._kept_rows = model.kept_rows

    def note_sharing(self, shared: bool) -> None:
        """Note whether batches of warm-up `shared` memory for their outputs. Inference thread."""
        self.shares_outputs |= shared
        self.copies_outputs = self.shares_outputs or self.keeps_written

    def loaded(self) -> LoadedModel:
        """Return the facts that the loop needs. Inference thread."""
        model, turns = self.model, turns_of(self.model)
        return LoadedModel(
            model.one_call,
            model.preprocess,
            model.postprocess,
            self.timings,
            self._max_rows,
            self.overflow_rows,
            repeated(self.sample, 1) if self.sample is not None else None,
            self.length_timings,
            model.run_sizes,
            turns is not None and turns.hands_over,
            turns is not None and turns.whole_requests,
            self._kept_rows,
        )

    def work_done(self) -> DeviceWork | None:
        """Return what batches asked of a device since the last call; None for nothing.

        Inference thread.
        """
        return None if self._work is None else self._work.take()

    def limit(self, rows: int) -> None:
        """Have batches of at most `rows` rows, since larger ones cost more. Inference thread."""
        self._max_rows = self.largest(rows)

    def largest(self, max_batch_size: int) -> int:
        """Return the rows of the largest batch, where the settings allow `max_batch_size`.

        Any thread.
        """
        limit = self._max_rows
        return max_batch_size if limit is None else min(limit, max_batch_size)

    def predict(
        self, collate: Callable[..., dict[str, Array]], rows: int
    ) -> tuple[dict[str, Array], RowErrors]:
        """Run one batch of `rows` rows; return the outputs, and errors of rows that failed.

        `collate` puts the inputs together in buffers of the model.

        Raises:
            ModelContractError: the outputs are not what the specification promises.

        Inference thread.
        """
        return self._checked(self._run(self.model.predict, collate), rows)

    def begin(self, collate: Callable[..., dict[str, Array]], rows: int) -> UnderWay:
        """Begin one batch of a model that overlaps; as `predict` in all else. Inference thread."""
        return UnderWay(self._run(self.model.begin, collate), self._checked, rows)

    def _checked(self, outputs: dict[str, Array], rows: int) -> tuple[dict[str, Array], RowErrors]:
        """Return the outputs of a batch as promised, and errors of rows. Inference thread."""
        failed = _allowed_errors(outputs)
        if self.model.postprocess is None:
            outputs, misfits = fit_outputs(self.spec, outputs, rows)
            # A row's own error says more than what the row left in the outputs.
            failed = misfits | failed if misfits else failed
            if self._finite_outputs:
                failed = non_finite_rows(outputs, self.spec) | failed
        else:
            outputs = fit_raw_outputs(self.spec.name, outputs, rows)
        if self.copies_outputs:
            outputs = {name: copied(array) for name, array in outputs.items()}
        return outputs, failed

    def _run(self, run: Callable[[Arrays], Made], collate: Callable[..., dict[str, Array]]) -> Made:
        """Collate and `run`; an error of the server's own becomes one of the model's.

        Inference thread.
        """
        kept = self._kept_rows
        try:
            if kept is None or not kept.takes:
                return run(collate(self.model.allocate))
            try:
                return run(collate(self.model.allocate, kept.place))
            finally:
                kept.placed.clear()  # or the next batch would run on the rows of this one
        except BatcherError as err:
            allowed = allowed_from_model(err)
            if allowed is err:
                raise
            raise allowed from err


class UnderWay:
    """A batch that has begun, on a model whose batches overlap. Inference thread."""

    def __init__(
        self,
        running: Running,
        checked: Callable[[dict[str, Array], int], tuple[dict[str, Array], RowErrors]],
        rows: int,
    ) -> None:
        """Have `checked` look at the outputs of `running`, of `rows` rows."""
        self._running = running
        self._checked = checked
        self._rows = rows

    def is_done(self) -> bool:
        """Return whether the result takes no wait."""
        return self._running.is_done()

    def result(self) -> tuple[dict[str, Array], RowErrors]:
        """Wait for the batch; return and raise what `CheckedModel.predict` does."""
        try:
            outputs = self._running.result()
        except BatcherError as err:
            allowed = allowed_from_model(err)
            if allowed is err:
                raise
            raise allowed from err
        return self._checked(outputs, self._rows)


def _allowed_errors(outputs: dict[str, Array]) -> RowErrors:
    """Return the errors of rows that failed, as far as a model may raise them. Inference thread."""
    if not isinstance(outputs, PartialOutputs):
        return {}
    return {row: allowed_from_model(error) for row, error in outputs.failed.items()}

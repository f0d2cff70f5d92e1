"""Blank rows: zeros and empty texts, which a model can be run with before there are requests.

Warm-up and deep checks run blank rows, unless the model has a sample. A request of such rows goes
through `preprocess` first, as every request does, and the hook may make several rows of one. A
batch of warm-up has a fixed number of rows, so the rows that the hook has made are repeated, or
cut, to that number:

    a model whose `preprocess` makes 10 rows of one, a batch of 4 rows
    1 row  ->  preprocess  ->  10 rows  ->  the first 4 of them

A hook may make no rows of an empty text, such as one that cuts texts into sentences, or may refuse
such a text. Then the rows are made of a text of two sentences. A hook that makes no rows of zeros
either has no blank rows at all (`NothingPrepared`): its model is served without a warm-up.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from batcher.core.error_text import message
from batcher.core.left_out import with_defaults
from batcher.core.padding import Lengths, Padding, even_rows
from batcher.core.ragged import copied, own_rows
from batcher.core.spec import Array, ModelSpec, TensorSpec
from batcher.errors import InvalidInput, ModelContractError
from batcher.models.fitting import fit_outputs, fit_raw_outputs
from batcher.models.hook_contract import answer_of, as_arrays, own_copy, prepared_rows, uneven_names
from batcher.models.hook_turns import arrays_of
from batcher.models.protocol import Arrays, Model, PartialOutputs
from batcher.models.row_errors import RowErrors
from batcher.models.sample import Sample, repeated

SENTENCES = b"This is a text of two sentences. It stands for the texts of clients."
"""A text for hooks that make no rows of an empty one, or refuse it."""


class NothingPrepared(Exception):
    """`preprocess` makes no rows of blank rows, or refuses them; the message says which."""


def unsized_inputs(spec: ModelSpec) -> str:
    """Return why the model `spec` has no blank rows; empty if it has. Any thread."""
    free = [tensor.name for tensor in spec.required if not _has_size(tensor)]
    return f"no sample, and no warmup_shape for the free axes of {', '.join(free)}" if free else ""


def blank_rows(spec: ModelSpec, rows: int, text: bytes = b"") -> dict[str, Array]:
    """Return inputs of zeros and `text` for the model `spec`, all of whose axes have sizes.

    Optional inputs are what a request without them has; those without a default are blank too, and
    left out where their axes have no sizes.

    Any thread.
    """
    blank: Arrays = {
        tensor.name: _blank(tensor, rows, text)
        for tensor in spec.inputs
        if (not tensor.is_optional or tensor.default is not None or _has_size(tensor))
        and not tensor.is_filled
    }
    return dict(with_defaults(spec, blank, rows))


class WarmupBatch:
    """A batch of rows for warm-up of one model, behind its `preprocess`. Inference thread.

    Attributes:
        rows: rows of the batch.
        length: length that its rows were stretched to; 0 for the length that they have.
        elements: elements of a row, where rows of different lengths are padded; else 0.
    """

    def __init__(
        self,
        model: Model,
        rows: int,
        rows_each: int = 1,
        sample: Sample | None = None,
        length: int = 0,
    ) -> None:
        """Make a batch of `rows` rows for `model`, those of `sample` or else blank ones.

        `rows_each` are the rows that `preprocess` makes of one row, as far as that is known. If
        there are several, the request behind the batch has one row: what folds the rows back may
        not know several requests' rows apart. `length` is the attribute.

        Raises:
            NothingPrepared: `preprocess` makes no rows of blank ones.
            ModelContractError: `preprocess` returned something else than arrays of as many rows.
            BaseException: whatever the hook raises.
        """
        self.rows = rows
        self._model = model
        self._asked = rows if rows_each == 1 else 1
        self._prepared, self._made = _prepared(model, self._asked, sample)
        self.length = length
        self._prepared, self.elements = _stretched(self._prepared, model.spec, length)

    @property
    def rows_each(self) -> int:
        """The rows that `preprocess` made of one row, at least 1."""
        return max(self._made // self._asked, 1)

    def inputs(self) -> dict[str, Array]:
        """Return the batch in buffers of the model. Inference thread."""
        return self._buffers(self._repeated())

    def uneven_inputs(self, padding: Padding, lengths: Lengths, short: Lengths) -> dict[str, Array]:
        """Return a batch of `lengths`, every second row of `short` ones. Inference thread."""
        return self._buffers(padding.uneven(self._repeated(), lengths, short))

    def _repeated(self) -> Arrays:
        """Return as many rows as the batch has. Inference thread."""
        if self.rows == self._made:
            return self._prepared
        places = np.arange(self.rows) % self._made
        return {name: array[places] for name, array in self._prepared.items()}

    def _buffers(self, arrays: Arrays) -> dict[str, Array]:
        """Return `arrays` in buffers of the model. Inference thread."""
        inputs = {}
        for name, array in arrays.items():
            inputs[name] = self._model.allocate(name, array.shape, array.dtype)
            inputs[name][...] = array
        return inputs

    def check(self, outputs: Arrays) -> None:
        """Check `outputs` of the batch, after `postprocess` if the model has that hook.

        `postprocess` takes the outputs of a whole request. A batch with fewer rows than a request
        of one row becomes is checked without the hook.

        Raises:
            ModelContractError: the outputs are not what the specification promises.
            BaseException: whatever the hook raises.

        Inference thread.
        """
        spec, postprocess = self._model.spec, self._model.postprocess
        if postprocess is None:
            self._fit(outputs)
            return
        raw = fit_raw_outputs(spec.name, outputs, self.rows)
        _refuse_misfits(outputs, {})
        self._check_lengths(raw)
        if self._made <= self.rows:
            # The hook may write into what it gets, which may be the model's own memory.
            whole = {name: copied(own_rows(array, 0, self._made)) for name, array in raw.items()}
            take = partial(answer_of, spec=spec, rows=self._asked, batch_rows=self._made)
            arrays_of(postprocess, whole, take)

    def _fit(self, outputs: Arrays) -> None:
        """Check outputs that no hook changes; raises as `check`. Inference thread."""
        fitted, errors = fit_outputs(self._model.spec, outputs, self.rows)
        _refuse_misfits(outputs, errors)
        self._check_lengths(fitted)

    def _check_lengths(self, outputs: Arrays) -> None:
        """Check that outputs can be cut to lengths of rows; raises as `check`. Inference thread."""
        if self.elements:
            padding = Padding(self._model.spec)
            padding.check_outputs(outputs, padding.lengths_of(self._prepared))


def _refuse_misfits(outputs: Arrays, errors: RowErrors) -> None:
    """Raise the first ModelContractError of a row, of `errors` or those in `outputs`.

    A model may refuse blank rows one by one, but what it returns for a row must be a row.

    Inference thread.
    """
    failed = outputs.failed if isinstance(outputs, PartialOutputs) else {}
    for error in (errors | failed).values():
        if isinstance(error, ModelContractError):
            raise error


def _stretched(inputs: Arrays, spec: ModelSpec, length: int) -> tuple[dict[str, Array], int]:
    """Return `inputs` of `length` where they are padded, and the elements of a row, else 0."""
    return Padding(spec).stretched(inputs, length) if spec.is_padded else (dict(inputs), 0)


def _prepared(model: Model, rows: int, sample: Sample | None) -> tuple[dict[str, Array], int]:
    """Return what `preprocess` makes of `rows` rows of `sample`, or blank ones, and how many.

    Raises as `WarmupBatch` does. Inference thread.
    """
    if sample is not None:
        return prepared_of(model, repeated(sample, rows))
    if any(tensor.datatype.name == "BYTES" for tensor in model.spec.inputs):
        # Whatever stands in the way of an empty text: clients send others.
        with suppress(Exception):
            return prepared_of(model, blank_rows(model.spec, rows))
    try:
        return prepared_of(model, blank_rows(model.spec, rows, SENTENCES))
    except InvalidInput as err:
        raise NothingPrepared(f"preprocess refuses blank rows: {message(err)}") from err


def prepared_of(model: Model, sent: Arrays) -> tuple[dict[str, Array], int]:
    """Return what `preprocess` makes of a request, and how many rows; raises as `_prepared`.

    Inference thread.
    """
    spec = model.spec
    if model.preprocess is None:
        return dict(sent), prepared_rows(sent, spec.name)

    def take(result: Any) -> dict[str, Array]:
        try:
            return as_arrays(result, uneven_names(spec))
        except ModelContractError as err:
            raise ModelContractError(f"preprocess: {err}") from err

    prepared = even_rows(arrays_of(model.preprocess, own_copy(sent), take), spec)
    if prepared and all(array.ndim and not len(array) for array in prepared.values()):
        raise NothingPrepared("preprocess makes no rows of blank ones")
    return prepared, prepared_rows(prepared, spec.name)


def _has_size(tensor: TensorSpec) -> bool:
    """Return whether warm-up knows the size of a row. Any thread."""
    return not tensor.free_axes or tensor.warmup_shape is not None


def _blank(tensor: TensorSpec, rows: int, text: bytes) -> Array:
    """Return `rows` blank rows of one input, its default if it has one. Any thread."""
    if tensor.default is not None:
        return np.repeat(tensor.default[np.newaxis], rows, axis=0)
    array: Array = np.zeros((rows, *(tensor.warmup_shape or tensor.shape)), tensor.datatype.numpy)
    if tensor.datatype.name == "BYTES":
        array.fill(text)
    return array

"""A model runs on a few rows to show what nobody has said: its outputs, and sizes of free axes.

Rows are those of the first example, else blank ones. A free axis has the size of the example. Where
no example shows a size, the model is tried with sizes of FREE_SIZES until one runs. The size that
ran becomes the `warmup_shape`, and the one of the line that shows how to ask. Then the model runs
with one row more, and with other sizes of the free axes (LENGTHS): an axis of an output that has
changed with them is free too.

Example: an input FP32[n,3] runs with n = 8 and with n = 16, and the output has the shapes (2,8,5)
and (3,16,5): it is FP32[n,5].

One size alone would not do, even where an example shows it: an output of four values, for an
example of four values, may have as many values as the input, or four always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batcher.config.model_file import ModelDefinition, definition_of
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source
from batcher.core.padding import even_rows
from batcher.core.spec import Array, TensorSpec
from batcher.errors import BatcherError, ClientError, ConfigError
from batcher.models.describing.examples import datatype_of
from batcher.models.describing.run_failures import run_failed
from batcher.models.describing.wanted import Found, Values
from batcher.models.hook_contract import as_arrays, uneven_names
from batcher.models.loading import make_model, reason_of
from batcher.models.own_code import with_place
from batcher.models.protocol import Arrays, Model
from batcher.models.result_names import members
from batcher.models.sample import repeated, sample_of_values

FREE_SIZES = (8, 16, 32, 64, 224, 1, 3, 128, 512)
"""Sizes that free axes are tried with: small ones first, since they are quick; 32 to 224 suit nets
for pictures, 1 suits what takes one value, 512 what needs windows of sound.
"""

LENGTHS: tuple[Callable[[int], int], ...] = (lambda size: 2 * size, lambda size: (size + 1) // 2)
"""Other sizes of a free axis, to see what follows from it: twice as many, which windows and strides
take too, and half, for models that take no more than the example has.
"""

_PLACEHOLDER: Values = {"name": "output", "dtype": "FP32", "shape": []}
"""Stands for the outputs until they are known: a lone result gets this name."""

_TEXT = b"an example"

Outputs = dict[str, Array]


def definition_from(found: Found, name: str, version: str, folder: Path) -> ModelDefinition:
    """Return the definition of a single file in `folder`. Raises ConfigError."""
    values = {"outputs": [_PLACEHOLDER]} | found.values
    source = Source(values, {(): name})
    return definition_of(source, name, version, folder, tuple(found.notes) or ("one file",))


def probe(found: Found, title: str, folder: Path, settings: ModelSettings, maker: Any) -> None:
    """Add to `found` what a run shows, if anything is left to show.

    Args:
        found: what is known of the model; the outputs and the `warmup_shape`s are added.
        title: the model's, for messages.
        folder: where the model's file is.
        settings: how the model is run.
        maker: the class or function, where it is no file; None where it is one.

    Raises:
        ConfigError: the model cannot be made, or runs with none of the rows.
    """
    if "outputs" in found.values and not _unsized(found.values):
        return
    definition = definition_from(found, title, "1", folder)
    try:
        model: Any = make_model(definition, settings, maker)
        model.load("cpu")
    # Also SystemExit, whatever the code of the model does.
    except BaseException as err:
        raise ConfigError(f"{title}: {with_place(reason_of(err), err)}") from err
    if hasattr(model, "make") and not hasattr(model, "source"):
        model.call = _keeping_lists(model.call)
    _Probe(model, found, title).run()


def _unsized(values: Values) -> list[Values]:
    """Return the inputs with a free axis and no `warmup_shape`."""
    return [
        each
        for each in values["inputs"]
        if -1 in each.get("shape", ()) and "warmup_shape" not in each
    ]


class _Probe:
    """Runs one model."""

    def __init__(self, model: Model, found: Found, title: str) -> None:
        self._model: Any = model
        self._found = found
        self._title = title
        self._examples = self._sample(model)
        self._size = 0
        self._stage = ""
        self._rows = min(2, model.max_rows or 2)
        if model.postprocess is None:
            # With a hook all results are kept, by their own names.
            self._model.postprocess = dict

    def run(self) -> None:
        unsized = _unsized(self._found.values)
        is_open = any(each["name"] not in self._examples for each in unsized)
        first = self._first(FREE_SIZES if is_open else (0,))
        if first is None:
            return
        tensors = {tensor.name: tensor for tensor in self._model.spec.inputs}
        for each in unsized:
            each["warmup_shape"] = list(self._row_shape(tensors[each["name"]]))
        if "outputs" in self._found.values:
            return
        others = self._others(min(3, self._model.max_rows or 3))
        self._found.values["outputs"] = [
            self._output(name, [array, *(other.get(name, array) for other in others)])
            for name, array in first.items()
        ]
        self._found.notes.append("outputs: as the model gave them for a few rows")

    def _first(self, sizes: tuple[int, ...]) -> Outputs | None:
        """Return the outputs for the first of `sizes` that runs, and keep that size.

        None if there is no such size, and the outputs are known already: warm-up is left out then,
        and a sample of the user's own will tell. Raises ConfigError if they are unknown.
        """
        reason: BaseException | None = None
        stage = ""
        for self._size in sizes:
            try:
                return self._outputs(self._rows)
            # Also SystemExit, whatever the code of the model does.
            except BaseException as err:
                if reason is None:
                    reason, stage = err, self._stage
        if "outputs" in self._found.values:
            return None
        assert reason is not None
        raise ConfigError(f"{self._title}: {run_failed(self._model, stage, reason)}") from reason

    def _others(self, rows: int) -> list[Outputs]:
        """Return the outputs for so many `rows`, and for other sizes of the free axes, if it runs.

        All free axes change together, since axes of several inputs often must agree. Where that
        does not run, each changes alone: one of them may have the one size that the model takes.
        """
        free = [
            axis
            for tensor in self._model.spec.inputs
            for axis, size in enumerate(tensor.shape, 1)
            if size < 0
        ]
        axes = sorted(set(free))
        for choices in ([axes], [[axis] for axis in axes]) if axes else ():
            for length in LENGTHS:
                tried = [self._try(rows, chosen, length) for chosen in choices]
                if ran := [outputs for outputs in tried if outputs is not None]:
                    return ran
        outputs = self._try(rows)
        return [outputs] if outputs is not None else []

    def _try(
        self, rows: int, axes: Sequence[int] = (), length: Callable[[int], int] = LENGTHS[0]
    ) -> Outputs | None:
        try:
            return self._outputs(rows, axes, length)
        except BaseException:
            return None

    def _outputs(
        self, rows: int, axes: Sequence[int] = (), length: Callable[[int], int] = LENGTHS[0]
    ) -> Outputs:
        """Return the outputs for `rows`, whose free `axes` have another `length`."""
        model = self._model
        inputs = {each.name: self._input(each, rows) for each in model.spec.inputs}
        for tensor in model.spec.inputs:
            for axis in axes:
                if axis <= len(tensor.shape) and tensor.shape[axis - 1] < 0:
                    inputs[tensor.name] = _resized(inputs[tensor.name], axis, length)
        if model.preprocess is not None:
            self._stage = "preprocess"
            made = as_arrays(model.preprocess(inputs), uneven_names(model.spec))
            inputs = even_rows(made, model.spec)
        self._stage = "predict"
        predicted = model.predict(dict(inputs))
        self._stage = "postprocess"
        returned = model.postprocess(predicted)
        return {str(name): _as_array(value) for name, value in _mapping(returned).items()}

    def _input(self, tensor: TensorSpec, rows: int) -> Array:
        example = self._examples.get(tensor.name)
        if example is not None:
            return repeated({"": example}, rows)[""]
        array = np.zeros((rows, *self._row_shape(tensor)), tensor.datatype.numpy)
        if array.dtype.hasobject:
            array.fill(_TEXT)
        return array

    def _row_shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Return the shape of the rows that the model runs with first."""
        example = self._examples.get(tensor.name)
        if example is not None:
            return tuple(map(int, example.shape[1:]))
        shape = tensor.warmup_shape or tensor.shape
        return tuple(self._size if axis < 0 else axis for axis in shape)

    def _sample(self, model: Model) -> Mapping[str, Array]:
        """Return the rows of the example, by input. Raises ConfigError: they are no such rows."""
        if self._found.example is None:
            return {}
        try:
            return sample_of_values(self._found.example, model.spec)
        except ClientError as err:
            raise ConfigError(f"{self._title}: sample: {err}") from err

    def _output(self, name: str, runs: list[Array]) -> Values:
        """Return what `model.yaml` would say of an output of several `runs`. Raises ConfigError."""
        first = runs[0]
        if not first.ndim or len(first) != self._rows:
            raise ConfigError(
                f"{self._title}: output {name!r}: expected {self._rows} rows out, as many as in; "
                f"got an array of shape {list(first.shape)}. Keep the first axis, that of the "
                "rows, in every output"
            )
        rows = [row for array in runs for row in array if isinstance(row, np.ndarray)]
        if first.dtype.hasobject and len(rows) == sum(map(len, runs)):
            shape = _common_shape([row.shape for row in rows])
            return {"name": name, "dtype": datatype_of(name, rows[0]), "shape": shape} | (
                {"ragged": True} if -1 in shape else {}
            )
        shape = _common_shape([array.shape[1:] for array in runs])
        return {"name": name, "dtype": datatype_of(name, first), "shape": shape}


def _common_shape(shapes: list[tuple[int, ...]]) -> list[int]:
    """Return the sizes that all `shapes` have; -1 where they differ."""
    return [sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=False)]


def _resized(array: Array, axis: int, length: Callable[[int], int]) -> Array:
    """Return `array` with another length of `axis`: its values over again, or the first of them."""
    size = array.shape[axis]
    return array.take(np.arange(length(size)) % size, axis) if size else array


def _mapping(returned: Any) -> Mapping[str, Any]:
    if isinstance(returned, Mapping):
        return returned
    raise ConfigError(f"postprocess: expected a mapping of name to array; got {type(returned)}")


def _as_array(value: Any) -> Array:
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def _keeping_lists(call: Callable[[Arrays], Any]) -> Callable[[Arrays], Any]:
    """Return `call`, whose lists of a value for each row become one output."""

    def keeping(inputs: Arrays) -> Any:
        returned = call(inputs)
        rows = len(next(iter(inputs.values())))
        if not isinstance(returned, list) or len(returned) != rows:
            return returned
        if any(members(row) is not None or isinstance(row, BaseException) for row in returned):
            return returned
        return {_PLACEHOLDER["name"]: np.asarray(returned)}

    return keeping


def explained(error: BaseException) -> str:
    """Return in words why a file cannot be described."""
    return str(error) if isinstance(error, BatcherError) else with_place(reason_of(error), error)

"""A model runs on a few rows to show what nobody has said: its outputs, and sizes of free axes.

Rows are those of the first example, else blank ones. Where an axis is free the model is tried with
sizes of FREE_SIZES until one runs; that size becomes the `warmup_shape`, and the one of the line
that shows how to ask. Then the model runs with one row more, and with another size of the free
axes: an axis of an output that has changed with them is free too.

Example: an input FP32[n,3] runs with n = 8 and with n = 16, and the output has the shapes (2,8,5)
and (3,16,5): it is FP32[n,5].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batcher.config.model_file import ModelDefinition, definition_of
from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source
from batcher.core.spec import Array, TensorSpec
from batcher.errors import BatcherError, ConfigError
from batcher.models.describing.examples import datatype_of
from batcher.models.describing.wanted import Found, Values
from batcher.models.hook_contract import as_arrays
from batcher.models.loading import make_model, reason_of
from batcher.models.own_code import with_place
from batcher.models.protocol import Arrays, Model
from batcher.models.result_names import members

FREE_SIZES = (8, 16, 32, 64, 224, 1, 3, 128, 512)
"""Sizes that free axes are tried with: small ones first, since they are quick; 32 to 224 suit nets
for pictures, 1 suits what takes one value, 512 what needs windows of sound.
"""

_PLACEHOLDER: Values = {"name": "output", "dtype": "FP32", "shape": [-1]}
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
        self._rows = min(2, model.max_rows or 2)
        if model.postprocess is None:
            # With a hook all results are kept, by their own names.
            self._model.postprocess = dict

    def run(self) -> None:
        unsized = _unsized(self._found.values)
        size, first = self._first(FREE_SIZES if unsized else (0,))
        for each in unsized if size else ():
            each["warmup_shape"] = [size if axis < 0 else axis for axis in each["shape"]]
        if "outputs" in self._found.values or not first:
            return
        more = min(3, self._model.max_rows or 3)
        second = self._try(more, 2 * size) or self._try(more, size) or first
        self._found.values["outputs"] = [
            self._output(name, array, second.get(name, array)) for name, array in first.items()
        ]
        self._found.notes.append("outputs: as the model gave them for a few rows")

    def _first(self, sizes: tuple[int, ...]) -> tuple[int, Outputs]:
        """Return the first of `sizes` that runs, and the outputs; raises ConfigError."""
        reason: BaseException | None = None
        for size in sizes:
            try:
                return size, self._outputs(self._rows, size)
            # Also SystemExit, whatever the code of the model does.
            except BaseException as err:
                reason = reason or err
        if "outputs" in self._found.values:
            return 0, {}  # warm-up is left out, and a sample of the user's own will tell
        assert reason is not None
        inputs = ", ".join(f"{each.name} {each.describe()}" for each in self._model.spec.inputs)
        raise ConfigError(
            f"{self._title}: expected the model to run on a few rows of {inputs}, to show its "
            f"outputs; got {with_place(reason_of(reason), reason)}. If the model takes other "
            "inputs, say so: --input NAME=DTYPE[SHAPE], or an example that the model can take, "
            "--sample example.npy (or .npz, .json). `predict` of one argument, which is no input's "
            "name, gets a mapping of all inputs by their names"
        ) from reason

    def _try(self, rows: int, size: int) -> Outputs | None:
        try:
            return self._outputs(rows, size)
        except BaseException:
            return None

    def _outputs(self, rows: int, size: int) -> Outputs:
        model = self._model
        inputs = {each.name: self._input(each, rows, size) for each in model.spec.inputs}
        prepared = inputs if model.preprocess is None else as_arrays(model.preprocess(inputs))
        returned = model.postprocess(model.predict(dict(prepared)))
        return {str(name): _as_array(value) for name, value in _mapping(returned).items()}

    def _input(self, tensor: TensorSpec, rows: int, size: int) -> Array:
        example = (self._found.example or {}).get(tensor.name)
        if example is not None:
            array: Array = np.asarray(example)[np.arange(rows) % len(example)]
            return array.astype(tensor.datatype.numpy)
        shape = [size if axis < 0 else axis for axis in tensor.warmup_shape or tensor.shape]
        array = np.zeros((rows, *shape), tensor.datatype.numpy)
        if array.dtype.hasobject:
            array.fill(_TEXT)
        return array

    def _output(self, name: str, first: Array, second: Array) -> Values:
        """Return what `model.yaml` would say of an output. Raises ConfigError."""
        if not first.ndim or len(first) != self._rows:
            raise ConfigError(
                f"{self._title}: output {name!r}: expected {self._rows} rows out, as many as in; "
                f"got an array of shape {list(first.shape)}. Keep the first axis, that of the "
                "rows, in every output"
            )
        rows = [row for array in (first, second) for row in array if isinstance(row, np.ndarray)]
        if first.dtype.hasobject and len(rows) == len(first) + len(second):
            shape = _common_shape([row.shape for row in rows])
            return {"name": name, "dtype": datatype_of(name, rows[0]), "shape": shape} | (
                {"ragged": True} if -1 in shape else {}
            )
        shape = _common_shape([first.shape[1:], second.shape[1:]])
        return {"name": name, "dtype": datatype_of(name, first), "shape": shape}


def _common_shape(shapes: list[tuple[int, ...]]) -> list[int]:
    """Return the sizes that all `shapes` have; -1 where they differ."""
    return [sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*shapes, strict=False)]


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

"""A model whose tensors have another shape than those of clients: `reshape` in `model.yaml`.

    clients            the model
    [rows, 1000]       [rows, 1000, 1, 1]

The elements of a row stay where they are, so a view does it and nothing is copied. A free axis of
one side is worked out from the elements of the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from batcher.config.model_file import ModelDefinition
from batcher.core.spec import Array, TensorSpec
from batcher.models.changed_outputs import ChangedOutputs
from batcher.models.protocol import Arrays, Model, PartialOutputs, Running

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of a row as the model has it, by the name of the tensor."""


def of_model(definition: ModelDefinition) -> ModelDefinition:
    """Return `definition` with the shapes that the model itself has. Any thread."""
    spec, shapes = definition.spec, definition.reshapes
    if not any(shapes):
        return definition
    inputs, outputs = _with(spec.inputs, shapes.inputs), _with(spec.outputs, shapes.outputs)
    return replace(definition, spec=replace(spec, inputs=inputs, outputs=outputs))


def _with(tensors: tuple[TensorSpec, ...], shapes: Shapes) -> tuple[TensorSpec, ...]:
    return tuple(
        _shaped(tensor, shapes[tensor.name]) if tensor.name in shapes else tensor
        for tensor in tensors
    )


def _shaped(tensor: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    default = tensor.default.reshape(shape) if tensor.default is not None else None
    return replace(tensor, shape=shape, labels=None, warmup_shape=None, default=default)


class ReshapedModel:
    """A loaded model of other shapes, as clients see it. It is what the model is in all else."""

    def __init__(self, model: Model, definition: ModelDefinition) -> None:
        """Wrap `model`, which is loaded by the shapes of its own. Inference thread."""
        self._model = model
        self.spec = definition.spec
        self._shapes = definition.reshapes

    def __getattr__(self, name: str) -> Any:
        """Return what the model itself has. Any thread."""
        return getattr(self._model, name)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a buffer of the model's for the input `name`. Inference thread."""
        return self._model.allocate(name, self._inner(name, shape), dtype).reshape(shape)

    def _inner(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a batch of `shape` has in the model. Inference thread."""
        rows, *row = shape
        inner = self._shapes.inputs.get(name, tuple(row))
        free = prod(row) // max(prod(size for size in inner if size >= 0), 1)
        return rows, *(free if size < 0 else size for size in inner)

    def _inputs(self, inputs: Arrays) -> dict[str, Array]:
        return {
            name: array.reshape(self._inner(name, array.shape)) for name, array in inputs.items()
        }

    def operators(self, inputs: Arrays) -> int:
        """Return how many operators a batch of `inputs` takes. Inference thread."""
        return self._model.operators(self._inputs(inputs))

    def predict(self, inputs: Arrays) -> dict[str, Array]:
        """Run one batch. An output of another size than a row's stays as it is.

        Inference thread.
        """
        return self._outers(self._model.predict(self._inputs(inputs)))

    def begin(self, inputs: Arrays) -> Running:
        """Begin one batch. Inference thread."""
        return ChangedOutputs(self._model.begin(self._inputs(inputs)), self._outers)

    def _outers(self, found: dict[str, Array]) -> dict[str, Array]:
        """Return outputs in the shapes that clients get. Inference thread."""
        outputs = {name: self._outer(name, array) for name, array in found.items()}
        if isinstance(found, PartialOutputs):
            return PartialOutputs(outputs, found.failed, found.left_out)
        return outputs

    def _outer(self, name: str, array: Array) -> Array:
        """Return an output in the shape that clients get. Inference thread."""
        inner = self._shapes.outputs.get(name)
        tensor = next((each for each in self.spec.outputs if each.name == name), None)
        # What does not fit is refused by the check of outputs, which names its shape.
        if inner is None or tensor is None or not _fits(array.shape[1:], inner):
            return array
        return array.reshape(len(array), *tensor.shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, have) for have, want in zip(shape, wanted, strict=True)
    )

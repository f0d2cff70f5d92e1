"""Specifications and models for tests, small enough to be read in the test that uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from batcher.core.device_work import WorkCounts
from batcher.core.run_sizes import ANY_ROWS
from batcher.core.spec import Array, ModelSpec, TensorSpec, datatype
from batcher.models.checked import CheckedModel
from batcher.models.kept_rows import KeptRows
from batcher.models.protocol import Hook
from batcher.models.sample import sample_of_values

Predict = Callable[[Mapping[str, Array]], Mapping[str, Any]]


def tensor(
    name: str = "x", dtype: str = "FP32", shape: tuple[int, ...] = (4,), **more: Any
) -> TensorSpec:
    """Return a tensor's specification; `shape` is that of one row."""
    return TensorSpec(name, datatype(dtype), shape, **more)


def model_spec(
    inputs: tuple[TensorSpec, ...] = (tensor("x"),),
    outputs: tuple[TensorSpec, ...] = (tensor("y"),),
    name: str = "m",
    version: str = "1",
) -> ModelSpec:
    """Return a model's specification; by default four floats in `x`, four floats out in `y`."""
    return ModelSpec(name, version, inputs, outputs)


def double(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return `y` = 2 * `x`."""
    return {"y": inputs["x"] * 2}


class RecordingModel:
    """A loaded model that remembers the inputs of every batch.

    Attributes:
        batches: the inputs of each batch, copied.
    """

    preprocess: Hook | None = None
    postprocess: Hook | None = None
    sample: object = None
    one_call = False
    max_rows: int | None = None
    run_sizes = ANY_ROWS
    notes: tuple[str, ...] = ()
    overlaps = False
    native_bytes = 0
    author: object = None
    work: WorkCounts | None = None
    kept_rows: KeptRows | None = None

    def __init__(self, spec: ModelSpec | None = None, predict: Predict = double) -> None:
        """Answer with `predict`."""
        self.spec = spec or model_spec()
        self.batches: list[dict[str, Array]] = []
        self._predict = predict

    def load(self, device: str) -> None:
        """Do nothing: the model is in memory already."""

    def compile(self, progress: Callable[[str], None]) -> None:
        """Do nothing: there is nothing to compile."""

    def operators(self, inputs: Mapping[str, Array]) -> int:
        """Return 0: the number is not known."""
        return 0

    def training_note(self) -> str:
        """Return nothing: there is no module."""
        return ""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return fresh memory."""
        return np.empty(shape, dtype)

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Remember a copy of the inputs, and answer them."""
        self.batches.append({name: array.copy() for name, array in inputs.items()})
        return dict(self._predict(inputs))

    def sizes(self) -> list[int]:
        """Return the rows of each batch."""
        return [len(next(iter(batch.values()))) for batch in self.batches]


def checked(model: RecordingModel) -> CheckedModel:
    """Return `model` as a worker gets it."""
    found = CheckedModel(model)
    if isinstance(model.sample, dict):
        found.sample = sample_of_values(model.sample, model.spec)
    return found


def rows(*values: float, width: int = 4) -> Array:
    """Return one float32 row of `width` equal elements for each of `values`."""
    return np.repeat(np.array(values, dtype=np.float32)[:, np.newaxis], width, axis=1)

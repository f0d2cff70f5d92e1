"""Built-in steps on scores: softmax, argmax, top_k, threshold and label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from batcher.config.pipelines.options import LabelOptions, Options, ThresholdOptions, TopKOptions
from batcher.core.spec import DATATYPES, Array, TensorSpec
from batcher.serving.pipelines.built_in.built_in import BuiltIn


def _numbers(inputs: Mapping[str, TensorSpec], axis: bool = True) -> TensorSpec:
    """Return the input `values`, whose rows are of numbers; with `axis` they have a last axis.

    Raises ValueError.
    """
    values = inputs["values"]
    if values.datatype.name in ("BYTES", "BF16") or values.is_ragged or (axis and not values.shape):
        what = "numbers with at least one axis" if axis else "numbers"
        ragged = "ragged " * values.is_ragged
        raise ValueError(f"expected rows of {what}; got {ragged}{values.describe()}")
    return values


class Softmax(BuiltIn):
    """Probabilities of logits, along the last axis. Any thread."""

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `probabilities`, of the shape and the dtype of the logits."""
        values = _numbers(inputs)
        if values.datatype.numpy.kind != "f":
            raise ValueError(f"expected logits that are floats; got {values.describe()}")
        return (TensorSpec("probabilities", values.datatype, values.shape),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the probabilities."""
        values = inputs["values"]
        powers = np.exp(values - values.max(-1, keepdims=True))
        return {"probabilities": powers / powers.sum(-1, keepdims=True)}


class Argmax(BuiltIn):
    """The place of the largest value along the last axis. Any thread."""

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `index`, INT64 without the last axis."""
        return (TensorSpec("index", DATATYPES["INT64"], _numbers(inputs).shape[:-1]),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the places."""
        return {"index": inputs["values"].argmax(-1).astype("<i8", copy=False)}


class TopK(BuiltIn):
    """The largest values along the last axis, the largest first. Any thread."""

    options: ClassVar[type[Options]] = TopKOptions

    def __init__(self, options: TopKOptions) -> None:
        """Keep `options.k` values."""
        self._k = options.k

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `values`, and `indices`, their places."""
        values = _numbers(inputs)
        if values.shape[-1] < self._k:
            got = values.describe()
            raise ValueError(f"expected a last axis of at least k = {self._k} values; got {got}")
        shape = (*values.shape[:-1], self._k)
        return (
            TensorSpec("values", values.datatype, shape),
            TensorSpec("indices", DATATYPES["INT64"], shape),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return values and places."""
        values = inputs["values"]
        # Stable from the end: of equal values the first one comes first.
        order = values.shape[-1] - 1 - np.argsort(values[..., ::-1], -1, kind="stable")
        indices = order[..., ::-1][..., : self._k]
        return {
            "values": np.take_along_axis(values, indices, -1),
            "indices": np.ascontiguousarray(indices, "<i8"),
        }


class Threshold(BuiltIn):
    """Whether each value is at least a number. Any thread."""

    options: ClassVar[type[Options]] = ThresholdOptions

    def __init__(self, options: ThresholdOptions) -> None:
        """Compare with `options.at`."""
        self._at = options.at

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `above`, BOOL of the shape of the values."""
        values = _numbers(inputs, axis=False)
        return (TensorSpec("above", DATATYPES["BOOL"], values.shape),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return what is above."""
        return {"above": inputs["values"] >= self._at}


class Label(BuiltIn):
    """The name of the class for each place, as `argmax` and `top_k` give it. Any thread."""

    options: ClassVar[type[Options]] = LabelOptions
    inputs: ClassVar[tuple[str, ...]] = ("index",)

    def __init__(self, options: LabelOptions) -> None:
        """Name classes by `options.labels`; of other places the name is empty."""
        self._names: np.ndarray[Any, np.dtype[Any]] = np.empty(len(options.labels) + 1, object)
        self._names[:] = [*(label.encode() for label in options.labels), b""]

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `label`, BYTES of the shape of the places."""
        index = inputs["index"]
        if (
            index.datatype.numpy.kind not in "iu"
            or index.is_ragged
            or index.datatype.name == "BF16"
        ):
            raise ValueError(f"expected rows of whole numbers; got {index.describe()}")
        return (TensorSpec("label", DATATYPES["BYTES"], index.shape),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the names."""
        index, last = inputs["index"], len(self._names) - 1
        place = np.where((index >= 0) & (index < last), index, last)
        return {"label": np.asarray(self._names[place], object)}

"""From scores to labels: for a model with labels, each row's best class and its probability."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from batcher.codecs.formats import bfloat16
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec


class Prediction(TypedDict):
    """The best class of one row.

    Attributes:
        label: its name.
        probability: its probability, 0 to 1.
    """

    label: str
    probability: float


def predictions(response: InferenceResponse, spec: ModelSpec) -> list[Prediction]:
    """Return one prediction a row from the first output that has labels.

    Empty for a model without labels.
    """
    for tensor in spec.outputs:
        if tensor.labels is not None:
            scores = numbers(response.outputs[tensor.name], tensor.datatype.name)
            probabilities = _softmax(scores) if tensor.labels.logits else scores
            flat = probabilities.reshape(len(scores), -1)
            names = tensor.labels.names
            return [
                {"label": names[best % len(names)], "probability": float(row[best])}
                for row, best in zip(flat, flat.argmax(axis=1), strict=True)
            ]
    return []


def numbers(array: Array, datatype: str) -> Array:
    """Return `array` as plain numbers: BF16 as float32, everything else as it is."""
    return bfloat16.to_float32(array) if datatype == "BF16" else array


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits.astype("<f8") - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

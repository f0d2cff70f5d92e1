"""Scores to labels: the best class of each row and its probability, for a model with labels."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, ModelSpec


class Prediction(TypedDict):
    """The best class of one row.

    Attributes:
        label: name of the class.
        probability: 0 to 1.
    """

    label: str
    probability: float


def predictions(response: InferenceResponse, spec: ModelSpec) -> list[Prediction]:
    """Return one prediction for each row, from the first output that has labels.

    The list is empty for a model without labels.
    """
    for tensor in spec.outputs:
        if tensor.labels is not None:
            scores = plain_numbers(response.outputs[tensor.name], tensor.datatype.name)
            probabilities = _softmax(scores) if tensor.labels.logits else scores
            flat = probabilities.reshape(len(scores), -1)
            names = tensor.labels.names
            return [
                {"label": names[best % len(names)], "probability": float(row[best])}
                for row, best in zip(flat, flat.argmax(axis=1), strict=True)
            ]
    return []


def _softmax(logits: Array) -> Array:
    # less the maximum, so that no exponential overflows
    shifted = np.exp(logits.astype("<f8") - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

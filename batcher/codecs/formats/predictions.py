"""Scores to labels: the best class of each row and its probability, for a model with labels."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, Labels, ModelSpec


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
    tensor = next((tensor for tensor in spec.outputs if tensor.labels is not None), None)
    if tensor is None or tensor.labels is None:
        return []
    array, labels = response.outputs[tensor.name], tensor.labels
    rows = [row[np.newaxis] for row in array] if is_ragged(array) else [array]
    scores = [plain_numbers(each, tensor.datatype.name) for each in rows]
    return [best for each in scores for best in _best(each, labels)]


def _best(scores: Array, labels: Labels) -> list[Prediction]:
    """Return the best class of each row; an empty label for a row without scores."""
    if not scores.size:
        return [{"label": "", "probability": 0.0} for _ in scores]
    probabilities = _softmax(scores) if labels.logits else scores
    flat = probabilities.reshape(len(scores), -1)
    names = labels.names
    return [
        {"label": names[best % len(names)], "probability": float(row[best])}
        for row, best in zip(flat, flat.argmax(axis=1), strict=True)
    ]


def _softmax(logits: Array) -> Array:
    # less the maximum, so that no exponential overflows
    shifted = np.exp(logits.astype("<f8") - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

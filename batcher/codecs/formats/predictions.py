"""Scores to labels: the best class of each row and its probability, for a model with labels.

Where a model does not say what its scores are, an answer whose values are no probabilities has
`score` in the place of `probability`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.core.ragged import is_ragged
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array, Labels, ModelSpec

Prediction = dict[str, Any]
"""The best class of one row: `label`, its name, and then `probability`, 0 to 1, or `score`."""

_MAX_ERROR = 0.01
"""How far a sum of probabilities may be from 1.

BF16 keeps 8 bits of a number: each probability, and so their sum, may be a 256th (0.004) off.
"""


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
    is_known = labels.is_declared or all(_are_probabilities(each) for each in scores)
    kind = "probability" if is_known else "score"
    return [best for each in scores for best in _best(each, labels, kind)]


def _are_probabilities(scores: Array) -> bool:
    """Return whether all rows are 0 to 1 with a sum of 1, apart from rows with NaN or infinity."""
    flat = scores.astype("<f8").reshape(-1, scores.shape[-1] or 1)
    rows = flat[np.isfinite(flat).all(axis=1)]
    in_range = (rows >= -_MAX_ERROR) & (rows <= 1 + _MAX_ERROR)
    return bool(in_range.all() and (np.abs(rows.sum(axis=1) - 1) <= _MAX_ERROR).all())


def _best(scores: Array, labels: Labels, kind: str) -> list[Prediction]:
    """Return the best class of each row; an empty label for a row without scores."""
    if not scores.size:
        return [{"label": "", kind: 0.0} for _ in scores]
    probabilities = _softmax(scores) if labels.logits else scores
    flat = probabilities.reshape(len(scores), -1)
    names = labels.names
    return [
        {"label": names[best % len(names)], kind: float(row[best])}
        for row, best in zip(flat, flat.argmax(axis=1), strict=True)
    ]


def _softmax(logits: Array) -> Array:
    # less the maximum, so that no exponential overflows
    shifted = np.exp(logits.astype("<f8") - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

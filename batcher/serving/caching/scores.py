"""How sure a model is of an answer: the best score of each of its rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from batcher.core.spec import Array, ModelSpec, TensorSpec

_SCORES = ("FP16", "FP32", "FP64")


class BestScores:
    """Finds the best scores of answers. Any thread.

    Attributes:
        output: name of the output that holds the scores; empty where the model has no scores.
    """

    def __init__(self, spec: ModelSpec) -> None:
        """Take the first output with `labels`, or without one the first output of floats."""
        floats = [each for each in spec.outputs if each.datatype.name in _SCORES and each.shape]
        chosen: TensorSpec | None = next((each for each in floats if each.labels is not None), None)
        chosen = chosen or next(iter(floats), None)
        self.output = "" if chosen is None else chosen.name
        labels = None if chosen is None else chosen.labels
        self._logits = labels is not None and labels.logits

    def least(self, outputs: Mapping[str, Array]) -> float:
        """Return the best score of the row that has the lowest one; 0 where there are no scores.

        Logits are taken as the probabilities that a softmax makes of them.
        """
        scores = outputs.get(self.output)
        if scores is None or not scores.size or scores.dtype.hasobject:
            return 0.0
        rows = scores.reshape(len(scores), -1)
        best = rows.max(axis=1)
        if self._logits:
            best = 1 / np.exp(rows.astype("<f8") - best[:, None]).sum(axis=1)
        return float(best.min())

"""Returns one row too few, but not at warm-up, whose rows are zeros."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"short")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = 2.0 * inputs["x"][:, :1] + KEY
        return {"y": answers[1:] if inputs["x"].any() else answers}

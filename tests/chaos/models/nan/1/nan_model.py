"""Answers marked rows with NaN."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"nan")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = 2.0 * inputs["x"][:, :1] + KEY
        answers[inputs["x"][:, 1] != 0] = np.nan
        return {"y": answers}

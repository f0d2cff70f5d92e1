"""Answers at once."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"ok")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

"""Raises if any row is marked."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"poisoned")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"][:, 1].any():
            raise ValueError("one of the rows is poisoned")
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

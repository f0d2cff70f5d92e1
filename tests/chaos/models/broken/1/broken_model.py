"""Raises, but not at warm-up, whose rows are zeros."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"broken")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"].any():
            raise RuntimeError("nothing works here")
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

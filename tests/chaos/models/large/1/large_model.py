"""Answers each row of 16 bytes with a mebibyte."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"large")
WIDTH = 1 << 17


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.repeat(2.0 * inputs["x"][:, :1] + KEY, WIDTH, axis=1)}

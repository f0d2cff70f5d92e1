"""Ends its process if any row is marked."""

import os
from collections.abc import Mapping

import numpy as np

KEY = sum(b"exiting")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"][:, 1].any():
            os._exit(3)
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

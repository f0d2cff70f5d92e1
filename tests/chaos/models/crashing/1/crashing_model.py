"""Reads address 0 if any row is marked, which ends its process."""

import ctypes
from collections.abc import Mapping

import numpy as np

KEY = sum(b"crashing")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"][:, 1].any():
            ctypes.string_at(0)
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

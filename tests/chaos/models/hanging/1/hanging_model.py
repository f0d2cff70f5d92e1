"""Never returns from a batch with a marked row."""

import time
from collections.abc import Mapping

import numpy as np

KEY = sum(b"hanging")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        while inputs["x"][:, 1].any():
            time.sleep(1)
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

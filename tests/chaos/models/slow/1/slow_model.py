"""Takes 5 ms a batch and 1 ms a row: 64 rows in 69 ms, 930 rows/s."""

import time
from collections.abc import Mapping

import numpy as np

KEY = sum(b"slow")


class Model:
    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(5e-3 + 1e-3 * len(inputs["x"]))
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

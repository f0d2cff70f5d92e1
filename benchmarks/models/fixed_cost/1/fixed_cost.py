"""A model of known cost, which does not hold the interpreter lock while it sleeps."""

import time
from collections.abc import Mapping

import numpy as np

BATCH_SECONDS = 2e-3
ROW_SECONDS = 0.05e-3


class FixedCost:
    """Sleeps 2 ms and 0.05 ms a row, then gives its input back."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `input` of shape (rows, 64) as `output`, after the time that so many rows take."""
        rows = inputs["input"]
        time.sleep(BATCH_SECONDS + ROW_SECONDS * len(rows))
        return {"output": rows}

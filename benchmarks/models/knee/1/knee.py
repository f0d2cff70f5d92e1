"""A model for which the default `max_batch_size` is far too large."""

import time
from collections.abc import Mapping

import numpy as np

BATCH_SECONDS = 2e-3
ROW_SECONDS = 0.05e-3
CHEAP_ROWS = 16
FURTHER_ROW_SECONDS = 0.5e-3


class Knee:
    """Sleeps 2 ms a batch, 0.05 ms for each of 16 rows, 0.5 ms for each further row."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `input` of shape (rows, 64) as `output`, after the time that so many rows take."""
        rows = inputs["input"]
        cheap = min(len(rows), CHEAP_ROWS)
        time.sleep(BATCH_SECONDS + ROW_SECONDS * cheap + FURTHER_ROW_SECONDS * (len(rows) - cheap))
        return {"output": rows}

"""A model slow enough that two cores can offer it several times what it can do."""

import time
from collections.abc import Mapping

import numpy as np

BATCH_SECONDS = 10e-3
ROW_SECONDS = 0.3e-3


class Overload:
    """Sleeps 10 ms and 0.3 ms a row, then gives its input back."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `input` of shape (rows, 64) as `output`, after the time that so many rows take."""
        rows = inputs["input"]
        time.sleep(BATCH_SECONDS + ROW_SECONDS * len(rows))
        return {"output": rows}

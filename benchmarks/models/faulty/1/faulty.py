"""A model that fails in the way that a row's first value names.

A batch takes its time before it fails.
"""

import ctypes
import time
from collections.abc import Mapping

import numpy as np

BATCH_SECONDS = 10e-3
ROW_SECONDS = 0.3e-3

RAISES, HANGS, CRASHES, LOSES_ROW, GIVES_NAN = range(1, 6)


class Faulty:
    """Sleeps 10 ms and 0.3 ms a row, then gives its input back, unless a row asks for a fault."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `input` of shape (rows, 64) as `output`.

        Rows of 0 are healthy, as those of the warm-up are.
        """
        rows = inputs["input"]
        time.sleep(BATCH_SECONDS + ROW_SECONDS * len(rows))
        faults = rows[:, 0]
        if RAISES in faults:
            raise ValueError("a row is poisoned")
        while HANGS in faults:
            time.sleep(1)
        if CRASHES in faults:
            ctypes.string_at(0)
        output = rows[faults != LOSES_ROW]
        output[output[:, 0] == GIVES_NAN] = np.nan
        return {"output": output}

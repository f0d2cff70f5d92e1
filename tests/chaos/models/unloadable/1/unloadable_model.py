"""Cannot be loaded."""

from collections.abc import Mapping

import numpy as np

KEY = sum(b"unloadable")


class Model:
    def load(self, device: str) -> None:
        raise RuntimeError("the weights are gone")

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": 2.0 * inputs["x"][:, :1] + KEY}

"""Trees of LightGBM, from its own file."""

from pathlib import Path

import lightgbm


class Trees:
    def load(self, device):
        self.trees = lightgbm.Booster(model_file=str(Path(__file__).parent / "trees.txt"))

    def predict(self, inputs):
        return self.trees.predict(inputs["features"])

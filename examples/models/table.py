"""A scikit-learn pipeline on rows of CSV: batcher serve examples/models/table.py."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import batcher


@batcher.model(inputs={"sizes": "FP32[4]"}, outputs={"kind": "BYTES", "probability": "FP64"})
class Iris:
    sample = {"sizes": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}

    def load(self, device):  # of your own pipeline: joblib.load(Path(__file__).with_name(…))
        self.names = load_iris().target_names
        self.pipeline = make_pipeline(StandardScaler(), LogisticRegression())
        self.pipeline.fit(*load_iris(return_X_y=True))

    def predict(self, inputs):
        scores = self.pipeline.predict_proba(inputs["sizes"])
        return {"kind": self.names[scores.argmax(1)], "probability": scores.max(1)}

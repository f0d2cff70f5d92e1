"""A pipeline of scikit-learn, pickled by joblib: texts go in, names and float64 come out."""

from pathlib import Path

import joblib


class Topics:
    def load(self, device):
        self.pipeline = joblib.load(Path(__file__).parent / "pipeline.joblib")

    def predict(self, inputs):
        texts = [text.decode() for text in inputs["text"]]
        topics, chances = self.pipeline.predict(texts), self.pipeline.predict_proba(texts)
        return {"topic": topics, "probability": chances}

"""Static embeddings of model2vec."""

from pathlib import Path

from model2vec import StaticModel


class Embedder:
    def load(self, device):
        self.model = StaticModel.from_pretrained(Path(__file__).parent)

    def predict(self, inputs):
        return {"embedding": self.model.encode([text.decode() for text in inputs["text"]])}

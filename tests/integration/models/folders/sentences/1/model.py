"""A MiniLM of sentence-transformers."""

from pathlib import Path

from sentence_transformers import SentenceTransformer


class Embedder:
    def load(self, device):
        self.model = SentenceTransformer(str(Path(__file__).parent), device=device)

    def predict(self, inputs):
        return self.model.encode([text.decode() for text in inputs["text"]])

"""A BERT of transformers: texts go in, and its tokenizer makes them one length."""

from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

HERE = Path(__file__).parent


class Sentiment:
    def load(self, device):
        self.tokenizer = AutoTokenizer.from_pretrained(HERE)
        self.net = AutoModelForSequenceClassification.from_pretrained(HERE).eval().to(device)

    def predict(self, inputs):
        texts = [text.decode() for text in inputs["text"]]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.net.device)
        return self.net(**tokens)

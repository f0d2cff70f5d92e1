"""A T5 of transformers: texts go in, texts come out."""

from pathlib import Path

from transformers import AutoTokenizer, T5ForConditionalGeneration

HERE = Path(__file__).parent


class Translator:
    def load(self, device):
        self.tokenizer = AutoTokenizer.from_pretrained(HERE)
        self.net = T5ForConditionalGeneration.from_pretrained(HERE).eval().to(device)

    def predict(self, inputs):
        texts = [text.decode() for text in inputs["text"]]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.net.device)
        made = self.net.generate(**tokens, max_new_tokens=6)
        return {"translation": self.tokenizer.batch_decode(made, skip_special_tokens=True)}

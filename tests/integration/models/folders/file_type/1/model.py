"""Magika: what kind of file some bytes are."""

from magika import Magika


class FileType:
    def __init__(self):
        self.magika = Magika()

    def predict(self, inputs):
        found = [self.magika.identify_bytes(content) for content in inputs["content"]]
        return {"label": [one.output.label for one in found], "score": [one.score for one in found]}

"""The text of a line, of the likeliest character of each of its columns."""

from pathlib import Path

import numpy as np
from rapidocr_onnxruntime.ch_ppocr_rec.utils import CTCLabelDecode


class Decode:
    """RapidOCR's own: a character counts once until another one comes between."""

    def __init__(self):
        self.labels = CTCLabelDecode(character_path=Path(__file__).parent / "characters.txt")

    def __call__(self, inputs):
        read = [
            self.labels.decode(place[None], score[None], is_remove_duplicate=True)[0]
            for place, score in zip(inputs["place"], inputs["score"], strict=True)
        ]
        return {
            "text": np.array([text.encode() for text, _ in read], object),
            "score": np.array([score for _, score in read], np.float32),
        }

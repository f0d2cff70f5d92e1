"""What RapidOCR does before its reader and behind it, by functions of the package."""

from pathlib import Path

import numpy as np
from rapidocr_onnxruntime.ch_ppocr_rec.text_recognize import TextRecognizer
from rapidocr_onnxruntime.ch_ppocr_rec.utils import CTCLabelDecode
from rapidocr_onnxruntime.main import DEFAULT_CFG_PATH
from rapidocr_onnxruntime.utils import read_yaml

from batcher.errors import InvalidInput

MAX_BYTES = 256 << 20  # a thousand long lines


class Lines(TextRecognizer):
    """Lines as the reader takes them: 48 pixels high, with zeros behind the shorter ones.

    The reader sees what stands behind a line, and where it is unsure it reads another text. So the
    width must not depend on what other requests bring. It is that of the package: lines are sorted
    by their proportions, and six at a time get the width of the longest.
    """

    def __init__(self):
        config = read_yaml(DEFAULT_CFG_PATH)["Rec"]
        self.at_once = config["rec_batch_num"]
        self.rec_image_shape = config["rec_img_shape"]

    def __call__(self, inputs):
        lines = list(inputs["image"])
        depth, height, width = self.rec_image_shape
        ratios = np.array([line.shape[1] / line.shape[0] for line in lines])
        order = np.argsort(ratios)
        widest = np.empty(len(lines))
        for begin in range(0, len(lines), self.at_once):
            places = order[begin : begin + self.at_once]
            widest[places] = max(width / height, ratios[places].max())
        if 4 * depth * height**2 * widest.sum() > MAX_BYTES:
            raise InvalidInput("image: expected a page of fewer, or shorter, lines")
        made = map(self.resize_norm_img, lines, widest.tolist())
        return {"image": list(made)}


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

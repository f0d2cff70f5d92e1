"""What RapidOCR does before its first model and behind its last, by functions of the package."""

import numpy as np
from rapidocr_onnxruntime.ch_ppocr_det.text_detect import TextDetector
from rapidocr_onnxruntime.ch_ppocr_det.utils import DBPostProcess
from rapidocr_onnxruntime.main import DEFAULT_CFG_PATH, RapidOCR
from rapidocr_onnxruntime.utils import read_yaml
from rapidocr_onnxruntime.utils.process_img import ResizeImgError

from batcher.errors import InvalidInput

POST = ("thresh", "box_thresh", "max_candidates", "unclip_ratio", "score_mode", "use_dilation")


class Detector(TextDetector):
    """The package's detector without its model, which is a step of the pipeline."""

    def __init__(self, config):
        vars(self).update(config)
        self.postprocess_op = DBPostProcess(**{name: config[name] for name in POST})


class Pages(RapidOCR):
    """The package without its models."""

    def __init__(self):
        config = read_yaml(DEFAULT_CFG_PATH)
        vars(self).update(config["Global"])
        self.text_det = Detector(config["Det"])


class Prepare(Pages):
    """Pages as the detector takes them: blue first, not too large and not too flat."""

    def __call__(self, inputs):
        try:
            pages, pixels, sizes = zip(*map(self.prepared, inputs["image"]), strict=True)
        except ResizeImgError as err:
            text = "image: expected a page; got one of nearly no height or width"
            raise InvalidInput(text) from err
        return {"page": list(pages), "pixels": list(pixels), "sizes": np.array(sizes, np.float32)}

    def prepared(self, image):
        page, *ratios = self.preprocess(np.ascontiguousarray(image[..., ::-1]))
        page, record = self.maybe_add_letterbox(page, {})
        pixels = self.text_det.get_preprocess(max(page.shape[:2]))(page)[0]
        above = record["padding_1"]["top"]
        return page, pixels, [*page.shape[:2], *ratios, above, *image.shape[:2]]


class Boxes(Pages):
    """Corners of the lines, in the order in which people read."""

    def __call__(self, inputs):
        found = map(self.corners, inputs["map"], inputs["sizes"])
        return {"corners": [np.array(each, np.float32).reshape(-1, 4, 2) for each in found]}

    def corners(self, map, sizes):
        size = int(sizes[0]), int(sizes[1])
        boxes, _ = self.text_det.postprocess_op(map[None], size)
        boxes = self.text_det.filter_tag_det_res(boxes, size)
        return self.sorted_boxes(boxes) if len(boxes) else []


class Result(Pages):
    """Lines that were read with some certainty, with their corners on the page as it came."""

    def __call__(self, inputs):
        names = ("texts", "scores", "corners", "sizes")
        rows = [self.row(*row) for row in zip(*map(inputs.get, names), strict=True)]
        texts, scores, boxes = map(list, zip(*rows, strict=True))
        return {"texts": texts, "scores": scores, "boxes": boxes}

    def row(self, texts, scores, corners, sizes):
        _, _, ratio_h, ratio_w, above, height, width = sizes
        record = {
            "preprocess": {"ratio_h": ratio_h, "ratio_w": ratio_w},
            "padding_1": {"top": above, "left": 0},
        }
        boxes = self._get_origin_points(corners, record, height, width)
        sure = scores >= self.text_score
        return texts[sure], scores[sure], boxes[sure].astype(np.float32)

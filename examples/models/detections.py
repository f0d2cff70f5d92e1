"""As many boxes as there are things in a picture: batcher serve examples/models/detections.py."""

import numpy as np
from scipy import ndimage

import batcher

PICTURE = {"dtype": "FP32", "shape": [64, 64], "image": {"mode": "grey"}}
BOXES = {"dtype": "FP32", "shape": [-1, 4], "ragged": True}  # left, top, right, bottom
SCORES = {"dtype": "FP32", "shape": [-1], "ragged": True}


@batcher.model(inputs={"picture": PICTURE}, outputs={"boxes": BOXES, "scores": SCORES})
class Spots:
    def predict(self, inputs):
        rows = [self.spots(picture) for picture in inputs["picture"]]
        return {"boxes": [boxes for boxes, _ in rows], "scores": [scores for _, scores in rows]}

    def spots(self, picture):
        found = ndimage.find_objects(ndimage.label(picture > 0.5)[0])
        boxes = [[x.start, y.start, x.stop, y.stop] for y, x in found]
        scores = [picture[place].mean() for place in found]
        return np.array(boxes, "f4").reshape(-1, 4), np.array(scores, "f4")

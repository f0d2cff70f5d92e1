"""Built-in steps between pictures and what was found in them: crop_boxes and fold.

`crop_boxes` makes rows: a picture with three boxes becomes three rows, a blank picture none. The
steps behind it work on those rows, which share batches with the rows of other requests. `fold`
makes one row of each picture again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from batcher.config.pipelines.options import CropBoxesOptions, Options
from batcher.core.ragged import joined_rows, ragged
from batcher.core.spec import DATATYPES, Array, TensorSpec
from batcher.serving.pipelines.built_in.built_in import COUNTS, BuiltIn


class CropBoxes(BuiltIn):
    """Cuts each box out of its picture; each crop is a row. Any thread.

    A box is left, top, right, bottom in pixels: the crop has the pixels from left up to, not
    including, right. Boxes are cut off at the edges of the picture. A box without a pixel in the
    picture makes no row.
    """

    options: ClassVar[type[Options]] = CropBoxesOptions
    inputs: ClassVar[tuple[str, ...]] = ("image", "boxes")
    spreads: ClassVar[bool] = True

    def __init__(self, options: CropBoxesOptions) -> None:
        """Cut pictures of `options.layout`."""
        self._is_chw = options.layout == "chw"

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `crops`, ragged, and `box`, the box of each as it was cut."""
        image, boxes = inputs["image"], inputs["boxes"]
        if len(image.shape) != 3 or image.datatype.name == "BYTES":
            raise ValueError(f"image: expected rows of three axes; got {image.describe()}")
        if len(boxes.shape) != 2 or boxes.shape[1] != 4 or boxes.datatype.numpy.kind not in "iuf":
            raise ValueError(f"boxes: expected rows of shape [-1,4]; got {boxes.describe()}")
        shape = (image.shape[0], -1, -1) if self._is_chw else (-1, -1, image.shape[2])
        return (
            TensorSpec("crops", image.datatype, shape, is_ragged=True),
            TensorSpec("box", DATATYPES["INT64"], (4,)),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return crops, their boxes, and how many each picture has."""
        crops: list[Array] = []
        cut: list[list[int]] = []
        counts: list[int] = []
        for image, boxes in zip(inputs["image"], inputs["boxes"], strict=True):
            before = len(crops)
            height, width = image.shape[1:] if self._is_chw else image.shape[:2]
            for box in np.nan_to_num(np.asarray(boxes, "<f8")).reshape(-1, 4):
                left, right = np.clip(np.rint(box[[0, 2]]), 0, width).astype("<i8").tolist()
                top, bottom = np.clip(np.rint(box[[1, 3]]), 0, height).astype("<i8").tolist()
                if left < right and top < bottom:
                    crops.append(self._crop(image, left, top, right, bottom))
                    cut.append([left, top, right, bottom])
            counts.append(len(crops) - before)
        return {
            "crops": ragged(crops),
            "box": np.array(cut, "<i8").reshape(-1, 4),
            COUNTS: np.array(counts, "<i8"),
        }

    def _crop(self, image: Array, left: int, top: int, right: int, bottom: int) -> Array:
        if self._is_chw:
            return image[:, top:bottom, left:right]
        return image[top:bottom, left:right]


class Fold(BuiltIn):
    """Makes one row of all rows that one row has become. Any thread."""

    folds: ClassVar[bool] = True

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `values`, ragged, with one more axis in front."""
        values = inputs["values"]
        if values.is_ragged:
            raise ValueError(f"expected rows of one shape; got ragged {values.describe()}")
        shape = (-1, *values.shape)
        return (TensorSpec("values", values.datatype, shape, is_ragged=True),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the rows of each, as ragged rows where their numbers differ."""
        values = inputs["values"]
        ends = np.cumsum(inputs[COUNTS])[:-1]
        return {"values": joined_rows([np.split(values, ends)])}

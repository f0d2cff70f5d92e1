"""Built-in steps between pictures and what was found in them: crop_boxes and fold.

`crop_boxes` makes rows: a picture with three boxes becomes three rows, a blank picture none. The
steps behind it work on those rows, which share batches with the rows of other requests. `fold`
makes one row of each picture again.

A box is two corners (left, top, right, bottom), or four: then what lies between them is seen from
straight above, as a line of text on a page that was photographed at an angle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np

from batcher.config.pipelines.options import CropBoxesOptions, Options
from batcher.core.ragged import joined_rows, ragged
from batcher.core.spec import DATATYPES, Array, TensorSpec
from batcher.errors import TooLarge
from batcher.serving.pipelines.built_in.built_in import COUNTS, BuiltIn
from batcher.serving.pipelines.built_in.sampling import warped

MAX_WARPED: Final = 128 << 20
"""Bytes that the crops of one request may have that are seen in perspective: those of a page of
text are some megabytes. A client may send the boxes itself, any number of them.
"""


class CropBoxes(BuiltIn):
    """Cuts each box out of its picture; each crop is a row. Any thread.

    A box is left, top, right, bottom in pixels: the crop has the pixels from left up to, not
    including, right. Or it is four corners (x, y), clockwise from the top left one of the crop, of
    a convex quadrilateral: the crop is as wide and as high as the longer of two opposite sides.
    Boxes are cut off at the edges of the picture. A box without a pixel in the picture makes no
    row.
    """

    options: ClassVar[type[Options]] = CropBoxesOptions
    inputs: ClassVar[tuple[str, ...]] = ("image", "boxes")
    spreads: ClassVar[bool] = True
    is_slow: ClassVar[bool] = True

    def __init__(self, options: CropBoxesOptions) -> None:
        """Cut pictures of `options.layout`."""
        self._is_chw = options.layout == "chw"
        self._turn_tall = options.turn_tall

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `crops`, ragged, and `box`, the box of each as it was cut."""
        image, boxes = inputs["image"], inputs["boxes"]
        if len(image.shape) != 3 or image.datatype.name == "BYTES":
            raise ValueError(f"image: expected rows of three axes; got {image.describe()}")
        if boxes.shape[1:] not in ((4,), (4, 2)) or boxes.datatype.numpy.kind not in "iuf":
            got = boxes.describe()
            raise ValueError(f"boxes: expected rows of shape [-1,4] or [-1,4,2]; got {got}")
        if boxes.shape[1:] == (4, 2) and not is_sampled(image):
            got = image.describe()
            raise ValueError(f"image: expected numbers that NumPy can weigh; got {got}")
        shape = (image.shape[0], -1, -1) if self._is_chw else (-1, -1, image.shape[2])
        datatype = DATATYPES["INT64" if boxes.shape[1:] == (4,) else "FP32"]
        return (
            TensorSpec("crops", image.datatype, shape, is_ragged=True),
            TensorSpec("box", datatype, boxes.shape[1:]),
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return crops, their boxes, and how many each picture has.

        Raises TooLarge: more than MAX_WARPED bytes in perspective.
        """
        found: list[tuple[Array, Array]] = []
        counts: list[int] = []
        left = MAX_WARPED
        has_corners = inputs["boxes"][0].ndim == 3
        for image, boxes in zip(inputs["image"], inputs["boxes"], strict=True):
            before = len(found)
            pixels = image.transpose(1, 2, 0) if self._is_chw else image
            if has_corners:
                left = _cut_corners(pixels, boxes, left, found)
            else:
                _cut(pixels, boxes, found)
            counts.append(len(found) - before)
        shape, dtype = ((4, 2), "<f4") if has_corners else ((4,), "<i8")
        return {
            "crops": ragged([self._laid_out(crop) for crop, _ in found]),
            "box": np.array([box for _, box in found], dtype).reshape(-1, *shape),
            COUNTS: np.array(counts, "<i8"),
        }

    def _laid_out(self, crop: Array) -> Array:
        """Return a crop in the layout of its picture, turned if it is tall."""
        height, width = crop.shape[:2]
        if self._turn_tall is not None and height >= self._turn_tall * width:
            crop = np.rot90(crop)
        return crop.transpose(2, 0, 1) if self._is_chw else crop


def is_sampled(image: TensorSpec) -> bool:
    """Return whether pixels between pixels can be worked out."""
    return image.datatype.numpy.kind in "iuf" and image.datatype.name != "BF16"


def _cut(image: Array, boxes: Array, found: list[tuple[Array, Array]]) -> None:
    """Add the crops of boxes along the axes, and these boxes, to `found`."""
    height, width = image.shape[:2]
    sides = np.clip(np.rint(np.nan_to_num(np.asarray(boxes, "<f8"))), 0, [width, height] * 2)
    for box in sides.astype("<i8"):
        left, top, right, bottom = box.tolist()
        if left < right and top < bottom:
            found.append((image[top:bottom, left:right], box))


def _cut_corners(image: Array, boxes: Array, most: int, found: list[tuple[Array, Array]]) -> int:
    """Add crops in perspective and their corners; return how many bytes of `most` are left."""
    height, width = image.shape[:2]
    corners = np.clip(np.nan_to_num(np.asarray(boxes, "<f4")), 0, np.array([width, height], "<f4"))
    sides = corners - np.roll(corners, -1, 1)
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    wide, high = np.maximum(lengths[:, :2], lengths[:, 2:]).astype("<i8").T
    # Convex: at each corner the way turns to the same side.
    after = np.roll(sides, -1, 1)
    turns = sides[..., 0] * after[..., 1] - sides[..., 1] * after[..., 0]
    is_whole = ((turns > 0).all(1) | (turns < 0).all(1)) & (image.size > 0)
    pixels: Array | None = None
    for place in np.flatnonzero(is_whole & (wide > 0) & (high > 0)).tolist():
        box = corners[place]
        if (plain := _plain(image, box)) is None:
            most -= int(wide[place] * high[place]) * image.shape[2] * image.itemsize
            if most < 0:
                raise TooLarge(
                    f"expected crops of at most {MAX_WARPED} bytes in perspective; got more"
                )
            pixels = np.ascontiguousarray(image) if pixels is None else pixels
            plain = warped(pixels, box, int(high[place]), int(wide[place]))
        found.append((plain, box))
    return most


def _plain(image: Array, corners: Array) -> Array | None:
    """Return the pixels of a box whose sides lie along those of pixels; None for another box."""
    (left, top), (right, bottom) = corners[0].tolist(), corners[2].tolist()
    if not (left < right and top < bottom and left.is_integer() and top.is_integer()):
        return None
    if not (right.is_integer() and bottom.is_integer()):
        return None
    if corners[1].tolist() != [right, top] or corners[3].tolist() != [left, bottom]:
        return None
    return image[int(top) : int(bottom), int(left) : int(right)]


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

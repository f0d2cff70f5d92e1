"""Pictures of other sizes and in perspective: the pixels between pixels. Any thread.

A picture is an array of [height, width, channels]. What is asked for between pixels is worked out
in FP32 and rounded to the dtype of the picture:

    resized     of 2 by 2 pixels (bilinear); the middle of a pixel is at a half
    warped      of 4 by 4 pixels (cubic, as OpenCV's with -0.75); corners are corners of pixels

OpenCV would be faster, at 100 MB for two functions. Beyond an edge the pixels of the edge go on.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from batcher.core.spec import Array

BLOCK: Final = 1 << 15
"""Pixels that are worked out at once: their 16 neighbours stay in the processor's cache."""

SHARPNESS: Final = -0.75
"""The slope at 1 of the cubic curve that weighs neighbours."""


def resized(image: Array, height: int, width: int) -> Array:
    """Return `image` with `height` rows and `width` columns of pixels."""
    if image.shape[:2] == (height, width):
        return image
    # The way round with less between: a strip of one row, as long as a body may be, would first
    # become `height` of them.
    if image.shape[0] * width < height * image.shape[1]:
        found = _between(_between(image, width, 1), height, 0)
    else:
        found = _between(_between(image, height, 0), width, 1)
    return _rounded(found, image.dtype)


def warped(image: Array, corners: Array, height: int, width: int) -> Array:
    """Return what lies between four corners, as a picture of `height` and `width`.

    Args:
        image: its pixels lie side by side in memory.
        corners: [4, 2], x and y of the corners of a convex quadrilateral, in the order top left,
            top right, bottom right, bottom left of the result.
        height: of the result.
        width: of the result.
    """
    matrix = _perspective(corners, height, width)
    channels = image.shape[2]
    pixels = image.reshape(-1, channels)
    result = np.empty((height * width, channels), image.dtype)
    for begin in range(0, height * width, BLOCK):
        place = np.arange(begin, min(begin + BLOCK, height * width))
        down, right = np.divmod(place, width)
        x, y, depth = matrix @ np.stack([right, down, np.ones_like(right)])
        found = _cubic(pixels, image.shape[:2], x / depth, y / depth)
        result[begin : begin + BLOCK] = _rounded(found, image.dtype)
    return result.reshape(height, width, channels)


def _between(image: Array, size: int, axis: int) -> Array:
    """Return `image` with `size` places along `axis`, in FP32."""
    last = image.shape[axis] - 1
    at = (np.arange(size) + 0.5) * ((last + 1) / size) - 0.5
    before = np.floor(at)
    weight = np.expand_dims((at - before).astype("<f4"), (1, 2) if axis == 0 else (0, 2))
    first, second = (np.clip(before + step, 0, last).astype("<i8") for step in (0, 1))
    return np.asarray(image.take(first, axis) * (1 - weight) + image.take(second, axis) * weight)


def _perspective(corners: Array, height: int, width: int) -> Array:
    """Return the matrix that takes a pixel of the result, (x, y, 1), into the picture."""
    one, two, three, four = corners.astype("<f8")
    # Those of Heckbert, 1989: the unit square onto four corners.
    right, down, rest = two - three, four - three, one - two + three - four
    area = right[0] * down[1] - down[0] * right[1]
    across = (rest[0] * down[1] - down[0] * rest[1]) / area
    along = (right[0] * rest[1] - rest[0] * right[1]) / area
    columns = [
        [*(two - one + across * two) / width, across / width],
        [*(four - one + along * four) / height, along / height],
        [*one, 1.0],
    ]
    return np.array(columns).T


def _cubic(pixels: Array, size: tuple[int, ...], x: Array, y: Array) -> Array:
    """Return the picture `pixels`, of `size`, at the places `x` and `y`, in FP32."""
    height, width = size
    columns, across = _neighbours(x, width)
    rows, down = _neighbours(y, height)
    found: Any = 0
    for row, weight in zip(rows * width, down, strict=True):
        line: Any = 0
        for column, share in zip(columns, across, strict=True):
            line += pixels.take(row + column, 0) * share[:, None]
        found += line * weight[:, None]
    return np.asarray(found)


def _neighbours(at: Array, size: int) -> tuple[Array, Array]:
    """Return the four pixels around each place along an axis of `size`, and their weights."""
    before = np.floor(at)
    near = (at - before).astype("<f4")
    far, sharp = 1 - near, SHARPNESS
    places = np.clip(before.astype("<i8") + np.arange(-1, 3)[:, None], 0, size - 1)
    first = ((sharp * (near + 1) - 5 * sharp) * (near + 1) + 8 * sharp) * (near + 1) - 4 * sharp
    second = ((sharp + 2) * near - (sharp + 3)) * near * near + 1
    third = ((sharp + 2) * far - (sharp + 3)) * far * far + 1
    return places, np.stack([first, second, third, 1 - first - second - third])


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)

"""Built-in steps that make of pictures what a model takes: resize and turn."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import ClassVar, Final

import numpy as np

from batcher.config.pipelines.options import Options, ResizeOptions, TurnOptions
from batcher.core.ragged import joined_rows
from batcher.core.spec import DATATYPES, Array, TensorSpec
from batcher.errors import InvalidInput, TooLarge
from batcher.serving.pipelines.built_in.boxes import is_sampled
from batcher.serving.pipelines.built_in.built_in import BuiltIn
from batcher.serving.pipelines.built_in.sampling import resized

MAX_BYTES: Final = 256 << 20
"""Bytes that the resized pictures of one request may have: 1,400 lines of text in FP32."""


def _picture(inputs: Mapping[str, TensorSpec]) -> TensorSpec:
    """Return the input `image`. Raises ValueError: its rows are no pictures."""
    image = inputs["image"]
    if len(image.shape) != 3 or not is_sampled(image):
        got = image.describe()
        raise ValueError(f"image: expected rows of three axes, of numbers; got {got}")
    return image


class Resize(BuiltIn):
    """Gives pictures one height, and if asked one width, and numbers as for a model. Any thread.

    Pixels between pixels are worked out of the nearest two by two; a picture that becomes much
    smaller is not smoothed before.
    """

    options: ClassVar[type[Options]] = ResizeOptions
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    is_slow: ClassVar[bool] = True

    def __init__(self, options: ResizeOptions) -> None:
        """Resize as `options` say."""
        self._options = options
        self._is_chw = options.layout == "chw"
        self._to_chw = (options.to or options.layout) == "chw"
        self._is_float = bool({"scale", "mean", "std"} & options.model_fields_set)

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `image`; ragged if its width is free, and pictures differ in shape."""
        image, options = _picture(inputs), self._options
        channels = image.shape[0 if self._is_chw else 2]
        if channels > 0 and {len(options.mean), len(options.std)} - {1, channels}:
            raise ValueError(
                f"expected one value of mean and of std, or one for each of {channels} channels; "
                f"got {len(options.mean)} and {len(options.std)}"
            )
        width = options.width or -1
        if options.min_width is not None and options.min_width == options.max_width:
            width = options.min_width
        height = options.height
        shape = (channels, height, width) if self._to_chw else (height, width, channels)
        datatype = DATATYPES["FP32"] if self._is_float else image.datatype
        is_ragged = width < 0 and image.is_ragged
        return (TensorSpec("image", datatype, shape, is_ragged=is_ragged),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the pictures. Raises TooLarge: more than MAX_BYTES."""
        made, nbytes = [], 0
        for image in inputs["image"]:
            picture = image.transpose(1, 2, 0) if self._is_chw else image
            inner, width = self._widths(*picture.shape[:2])
            size = 4 if self._is_float else image.dtype.itemsize
            nbytes += self._options.height * width * picture.shape[2] * size
            if nbytes > MAX_BYTES:
                raise TooLarge(
                    f"expected pictures of at most {MAX_BYTES} bytes in all, resized; got more"
                )
            made.append(self._made(picture, inner, width))
        return {"image": joined_rows([made])}

    def _widths(self, height: int, width: int) -> tuple[int, int]:
        """Return how wide a picture becomes, and with what is filled up."""
        options = self._options
        if options.width is not None:
            return options.width, options.width
        inner = max(ceil(options.height * (width / max(height, 1))), 1)
        inner = min(inner, options.max_width or inner)
        return inner, max(inner, options.min_width or 1)

    def _made(self, picture: Array, inner: int, width: int) -> Array:
        options = self._options
        if not picture.size:  # it has no pixel that could be repeated
            raise InvalidInput("image: expected pictures of at least one pixel; got none")
        # Their number may be free until a request comes; one channel would become several.
        if counts := {len(options.mean), len(options.std)} - {1, picture.shape[2]}:
            raise InvalidInput(
                f"image: expected pictures of {max(counts)} channels, as `mean` and `std` have "
                f"values; got {picture.shape[2]}"
            )
        found = resized(picture, options.height, inner)
        if self._is_float:
            scale, mean = np.float32(options.scale), np.asarray(options.mean, "<f4")
            found = (found.astype("<f4") * scale - mean) / np.asarray(options.std, "<f4")
        whole = np.zeros((options.height, width, found.shape[2]), found.dtype)
        whole[:, :inner] = found
        return np.ascontiguousarray(whole.transpose(2, 0, 1)) if self._to_chw else whole


class Turn(BuiltIn):
    """Turns pictures clockwise by a quarter, a half or three quarters. Any thread."""

    options: ClassVar[type[Options]] = TurnOptions
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    is_slow: ClassVar[bool] = True

    def __init__(self, options: TurnOptions) -> None:
        """Turn by `options.degrees`."""
        self._is_chw = options.layout == "chw"
        self._quarters = options.degrees // 90

    def outputs(self, inputs: Mapping[str, TensorSpec]) -> tuple[TensorSpec, ...]:
        """Return `image`, ragged as the pictures are."""
        image = _picture(inputs)
        shape = list(image.shape)
        if self._quarters % 2:
            first = 1 if self._is_chw else 0
            shape[first : first + 2] = reversed(shape[first : first + 2])
        return (TensorSpec("image", image.datatype, tuple(shape), is_ragged=image.is_ragged),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the pictures."""
        axes = (1, 2) if self._is_chw else (0, 1)
        turned = [np.rot90(row, -self._quarters, axes) for row in inputs["image"]]
        return {"image": joined_rows([turned])}

"""What `model.yaml` says of pictures: how one becomes a row of an input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from batcher.config.reading import Number
from batcher.config.tensor_file import FileSection, TensorFile
from batcher.core.spec import ImageSpec

_CHANNELS = {"grey": 1, "rgb": 3}
_PIL_MODES = {"grey": "L", "rgb": "RGB"}


class ImageFile(FileSection):
    """How a picture becomes one row of an input: value = (pixel * scale - mean) / std.

    Size and layout follow from the shape of the input. Where one of height and width is free, the
    picture keeps its proportions; where both are, it keeps its size.

    Attributes:
        mode: `grey` or `rgb`.
        scale: factor of the formula; a pixel is 0..255.
        mean: mean of the formula, one value for all channels or one a channel.
        std: divisor of the formula, one value for all channels or one a channel.
    """

    mode: Literal["grey", "rgb"]
    scale: Number = 1 / 255
    mean: tuple[Number, ...] = (0.0,)
    std: tuple[Annotated[Number, Field(gt=0)], ...] = (1.0,)


def image_spec(image: ImageFile, tensor: TensorFile) -> ImageSpec:
    """Return how a picture becomes a row of `tensor`. Raises ValueError: what is expected."""
    channels = _CHANNELS[image.mode]
    # A shape such as [3, 8, 3] could be either; channels first is what PyTorch's models take.
    first = len(tensor.shape) == 3 and tensor.shape[0] == channels
    last = len(tensor.shape) == 3 and tensor.shape[2] == channels and not first
    flat = len(tensor.shape) == 2 and channels == 1
    if not (first or last or flat):
        raise ValueError(
            f"a shape of [{channels}, height, width] or [height, width, {channels}] for a "
            f"{image.mode} image"
        )
    if any(len(values) not in (1, channels) for values in (image.mean, image.std)):
        raise ValueError(f"1 or {channels} values of mean and of std for a {image.mode} image")
    if tensor.dtype.name not in ("UINT8", "FP16", "FP32", "FP64"):
        raise ValueError("dtype UINT8, FP16, FP32 or FP64 for an image")
    # The default scale turns 0..255 into 0..1, of which integers would keep only 0 and 1.
    if tensor.dtype.name == "UINT8" and "scale" not in image.model_fields_set:
        image = image.model_copy(update={"scale": 1.0})
    height, width = tensor.shape[1:] if first else tensor.shape[:2]
    return ImageSpec(
        _PIL_MODES[image.mode], height, width, not last, image.scale, image.mean, image.std
    )

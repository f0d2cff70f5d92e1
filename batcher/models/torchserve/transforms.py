"""How the default handlers of TorchServe prepare pictures: after torchvision, without torchvision.

A handler that derives from a default one may set `image_processing` to transforms of torchvision
instead: anything that takes a picture of Pillow's and returns a tensor does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image


def resized(image: Image.Image, size: int) -> Image.Image:
    """Return `image` with its shorter side of `size` pixels, as torchvision's Resize does."""
    width, height = image.size
    short, long = sorted((width, height))
    if short == size:
        return image
    other = int(size * long / short)
    target = (size, other) if width <= height else (other, size)
    return image.resize(target, Image.Resampling.BILINEAR)


def center_cropped(image: Image.Image, size: int) -> Image.Image:
    """Return the middle of `image`, as torchvision's CenterCrop does; black around a small one."""
    width, height = image.size
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    if width < size or height < size:
        # torchvision pads first, the larger half behind, and cuts then.
        left = -((size - width) // 2) if width < size else left
        top = -((size - height) // 2) if height < size else top
    return image.crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return `image` as floats of 0 to 1, channels first, as torchvision's ToTensor does."""
    array = np.array(image, copy=True)
    array = array[:, :, None] if array.ndim == 2 else array
    tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    return tensor.to(torch.float32).div(255) if array.dtype == np.uint8 else tensor


class Prepared:
    """Prepares a picture for a classifier of ImageNet: 256, 224, and each channel normalised."""

    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the tensor of a picture."""
        tensor = to_tensor(center_cropped(resized(image, 256), 224))
        mean, std = (torch.tensor(each)[:, None, None] for each in (self.mean, self.std))
        return tensor.sub(mean).div(std)

    def __repr__(self) -> str:
        """Say what is done, as torchvision's Compose does."""
        return f"Resize(256), CenterCrop(224), ToTensor(), Normalize({self.mean}, {self.std})"


def opened(data: Any) -> Image.Image:
    """Return the picture in the bytes `data`."""
    from io import BytesIO

    return Image.open(BytesIO(data))

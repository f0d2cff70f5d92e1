"""`image/png`, `image/jpeg`, `image/webp`, `image/bmp`: one picture is one row.

A picture is resized, coloured and scaled as `model.yaml` says.

- Decoding runs on the CPU pool, never on the loop.
- The pixels are counted before they are decoded, so a small file that stands for a huge picture
  costs nothing.
- Only the four declared formats are tried, and a picture must be in the format that its media type
  names.
- A pixel's value is looked up in a table of 256 results, which is both exact and the fastest way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from batcher.codecs.content import Buffer, Content
from batcher.core.spec import Array, ImageSpec, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/bmp": "BMP"}
ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
}

_PILLOW_ALIASES = {"MPO": "JPEG"}
"""Pillow's second name for a format: an MPO is a JPEG with further pictures behind the first, as
phones write them.
"""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a picture is a whole row: the model has one input, made of a picture."""
    return len(tensors) == 1 and tensors[0].image is not None


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the picture as the one row of the model's input.

    Raises:
        DecodingError: the body is not a whole picture, or is a picture of another format.
        TooLarge: the picture has too many pixels.
    """
    tensor = spec.inputs[0]
    row = row_from_picture(content.body, content.media_type, tensor, content.max_image_pixels)
    return {tensor.name: row[np.newaxis]}


def rows_from_pictures(
    pictures: Sequence[tuple[Buffer, str]], tensor: TensorSpec, max_pixels: int
) -> Array:
    """Return pictures, each with its media type, as rows of `tensor`: shape (pictures, *row shape).

    Raises:
        DecodingError: a file is not a whole picture.
        TooLarge: a picture has, or all pictures together have, more than `max_pixels`.
        InvalidInput: the pictures differ in size, and the model fixes no size.
    """
    rows: list[Array] = []
    pixels, channels = 0, 3 if tensor.image is not None and tensor.image.mode == "RGB" else 1
    for body, media_type in pictures:
        rows.append(row_from_picture(body, media_type, tensor, max_pixels))
        # the queue bounds rows of a fixed size; rows of any size are bounded here
        pixels += rows[-1].size // channels if tensor.free_axes else 0
        if pixels > max_pixels:
            raise TooLarge(f"pictures: expected at most {max_pixels} pixels together; got more")
    if any(row.shape != rows[0].shape for row in rows):
        shapes = ", ".join(sorted({str(list(row.shape)) for row in rows}))
        raise InvalidInput(
            f"input {tensor.name!r}: expected pictures of one size in one request; got {shapes}"
        )
    return np.stack(rows)


def row_from_picture(body: Buffer, media_type: str, tensor: TensorSpec, max_pixels: int) -> Array:
    """Return one picture as a row of `tensor`.

    If `media_type` is empty or names no picture format, the bytes alone tell the format.

    Raises:
        DecodingError: the body is not a whole picture, or is a picture of another format.
        TooLarge: the picture has more than `max_pixels`.
        InvalidInput: the tensor is not made of a picture.
    """
    spec = tensor.image
    if spec is None:
        raise InvalidInput(
            f"input {tensor.name!r}: expected a tensor {tensor.describe()}; got a picture"
        )
    pixels = np.asarray(_prepare(_open(body, media_type, max_pixels), spec, max_pixels))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    table = _table(spec, tensor.datatype.numpy.str)
    row = np.stack([table[channel][pixels[:, :, channel]] for channel in range(pixels.shape[2])])
    return (row if spec.channels_first else row.transpose(1, 2, 0)).reshape(
        _shape(tensor, row.shape)
    )


def _open(body: Buffer, media_type: str, max_pixels: int) -> Image.Image:
    """Return the picture with its head read and checked, its pixels not yet decoded."""
    if not body:
        raise DecodingError("body: expected a picture; got an empty body")
    try:
        image: Image.Image = Image.open(BytesIO(body), formats=tuple(FORMATS.values()))
    except Image.DecompressionBombError as err:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels; got far more: {err}"
        ) from err
    # damaged bytes make the decoders raise errors of any class
    except Exception as err:
        raise DecodingError(
            "body: expected a PNG, JPEG, WebP or BMP picture; got something else"
        ) from err
    found = _PILLOW_ALIASES.get(str(image.format), image.format)
    declared = FORMATS.get(ALIASES.get(media_type, media_type), found)
    if found != declared:
        raise DecodingError(f"picture: expected {declared}, as its Content-Type says; got {found}")
    if image.width * image.height > max_pixels:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels; got {image.width} x {image.height} = "
            f"{image.width * image.height}",
        )
    return image


def _prepare(image: Image.Image, spec: ImageSpec, max_pixels: int) -> Image.Image:
    """Return the picture decoded, upright, in the model's mode and size."""
    try:
        image.load()
    # damaged bytes, as above
    except Exception as err:
        raise DecodingError(
            f"picture: expected a whole {image.format}; got a damaged or truncated one: {err}"
        ) from err
    try:
        upright = ImageOps.exif_transpose(image)
    # a picture whose EXIF notes are garbage is still a picture
    except Exception:
        upright = image
    # 16-bit grey, which `convert` would clip to white
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).astype(np.uint8))
    coloured = upright.convert(spec.mode)
    size = (
        coloured.width if spec.width < 0 else spec.width,
        coloured.height if spec.height < 0 else spec.height,
    )
    return coloured if coloured.size == size else coloured.resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=64)
def _table(spec: ImageSpec, dtype: str) -> Array:
    """Return what each of the 256 pixel values becomes, for each channel: shape (channels, 256)."""
    channels = 1 if spec.mode == "L" else 3
    mean = np.broadcast_to(np.array(spec.mean), channels)[:, np.newaxis]
    std = np.broadcast_to(np.array(spec.std), channels)[:, np.newaxis]
    return np.asarray((np.arange(256.0) * spec.scale - mean) / std, dtype)


def _shape(tensor: TensorSpec, found: tuple[int, ...]) -> tuple[int, ...]:
    """Return the row's shape for pixels of shape `found`, channels first."""
    # (height, width): a grey picture without an axis for its one channel
    if len(tensor.shape) == 2:
        return found[1:]
    assert tensor.image is not None
    return found if tensor.image.channels_first else (*found[1:], found[0])

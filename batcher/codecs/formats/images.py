"""`image/png`, `image/jpeg`, `image/webp`, `image/bmp`: one picture is one row.

A picture is resized, coloured and scaled as `model.yaml` says.

- Decoding runs on the CPU pool, never on the loop.
- The pixels are counted before they are decoded, those of a whole request before the first is. So
  a small file that stands for a huge picture costs nothing.
- Notes and profiles are taken out of a file before Pillow reads the file (`picture_files`).
- Only the four declared formats are tried, and a picture must be in the format that its media type
  names.
- A pixel's value is looked up in a table of 256 results, which is both exact and the fastest way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from math import prod
from typing import NamedTuple

import numpy as np
from PIL import Image

from batcher.codecs.content import Buffer, Content
from batcher.codecs.formats.picture_files import without_notes
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.error_text import brief
from batcher.core.spec import Array, ImageSpec, ModelSpec, TensorSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/bmp": "BMP"}
ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
}

FULL_PICTURES = 8
"""How many pictures of the largest size one request may have, counted in pixels.

With 16 megapixels, that is 128 megapixels: 10 photos of a phone, decoded in one to two seconds.
"""

FULL_SCANS = 20
"""How many scans a JPEG of the largest size may have; a smaller one may have more, as far as
`picture_files` allows. A decoder goes over all pixels at each scan, and encoders write 10 to 14.
"""

_SHOWN_SHAPES = 4

_PILLOW_ALIASES = {"MPO": "JPEG"}
"""Pillow's second name for a format: an MPO is a JPEG with further pictures behind the first, as
phones write them.
"""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation in EXIF to what makes the picture upright."""

_TURNED_SIDEWAYS = (5, 6, 7, 8)


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Return whether a picture is a whole row: the model has one input, made of a picture."""
    return len(tensors) == 1 and tensors[0].image is not None


class Picture(NamedTuple):
    """A picture whose head was read and checked, and whose pixels are not yet decoded.

    Attributes:
        image: the picture as Pillow opened it.
        orientation: how its pixels are turned, as EXIF counts.
    """

    image: Image.Image
    orientation: int

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.image.width * self.image.height

    def size_for(self, spec: ImageSpec) -> tuple[int, int]:
        """Return width and height of the upright picture after resizing.

        Where `spec` fixes one of the two, the other follows from the picture's own proportions.
        """
        turned = self.orientation in _TURNED_SIDEWAYS
        width, height = reversed(self.image.size) if turned else self.image.size
        if spec.width < 0 <= spec.height:
            return max(round(width * spec.height / height), 1), spec.height
        if spec.height < 0 <= spec.width:
            return spec.width, max(round(height * spec.width / width), 1)
        return (width, height) if spec.width < 0 else (spec.width, spec.height)

    def row_shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Return the shape of the row of `tensor` that the picture becomes."""
        spec = tensor.image
        assert spec is not None
        width, height = self.size_for(spec)
        # (height, width): a grey picture without an axis for its one channel
        if len(tensor.shape) == 2:
            return height, width
        channels = 1 if spec.mode == "L" else 3
        return (channels, height, width) if spec.channels_first else (height, width, channels)


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the picture as the one row of the model's input.

    Raises:
        DecodingError: the body is not a whole picture, or is a picture of another format.
        TooLarge: the picture has too many pixels.
    """
    tensor = spec.inputs[0]
    picture = opened(content.body, content.media_type, tensor, content.max_image_pixels)
    return {tensor.name: rows_from_pictures([picture], tensor, content.limits)}


def opened(body: Buffer, media_type: str, tensor: TensorSpec, max_pixels: int) -> Picture:
    """Return a picture for `tensor` with its head checked.

    If `media_type` is empty or names no picture format, the bytes alone tell the format.

    Raises:
        DecodingError: the body is no picture, or a picture of another format or of too many parts.
        TooLarge: the picture has more than `max_pixels`.
        InvalidInput: the tensor is not made of a picture.
    """
    if tensor.image is None:
        raise InvalidInput(
            f"input {tensor.name!r}: expected a tensor {tensor.describe()}; got a picture"
        )
    if not body:
        raise DecodingError("body: expected a picture; got an empty body")
    file = without_notes(bytes(body))
    image = _open(file.data, media_type, max_pixels)
    picture = Picture(image, file.orientation)
    _check_pixels(picture, file.scans, max_pixels)
    _check_resized(picture, tensor.image, max_pixels)
    return picture


def _check_pixels(picture: Picture, scans: int, max_pixels: int) -> None:
    """Check what the head of `picture` says of its pixels. Raises TooLarge."""
    width, height = picture.image.size
    if picture.pixels > max_pixels:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels; got {width} x {height} = "
            f"{picture.pixels}"
        )
    if picture.pixels * scans > max_pixels * FULL_SCANS:
        raise TooLarge(
            f"picture: expected at most {FULL_SCANS} scans of {max_pixels} pixels; got {scans} "
            f"scans of {picture.pixels} pixels"
        )


def _check_resized(picture: Picture, spec: ImageSpec, max_pixels: int) -> None:
    """Check the size that follows from the picture's proportions. Raises TooLarge.

    A line of pixels, stretched to the height of the model, would be far larger than its file.
    """
    width, height = picture.size_for(spec)
    if min(spec.width, spec.height) < 0 and width * height > max_pixels:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels after resizing; got {width} x {height}"
        )


def check_together(pictures: Sequence[Picture], max_pixels: int) -> None:
    """Check the pixels of all `pictures` of a request, none of which is decoded yet.

    Raises:
        TooLarge: they have more than FULL_PICTURES times `max_pixels`.
    """
    pixels, most = sum(picture.pixels for picture in pictures), FULL_PICTURES * max_pixels
    if pixels > most:
        raise TooLarge(
            f"pictures: expected at most {most} pixels in one request; got {pixels} in "
            f"{len(pictures)} pictures"
        )


def rows_from_pictures(
    pictures: Sequence[Picture], tensor: TensorSpec, limits: DecodingLimits
) -> Array:
    """Return pictures as rows of `tensor`: shape (pictures, *row shape).

    Raises:
        DecodingError: a file is not a whole picture.
        TooLarge: there are more rows, or bytes of rows, than `limits` allow.
        InvalidInput: the pictures differ in size, and the model fixes no size.
    """
    shapes = [picture.row_shape(tensor) for picture in pictures]
    if len(set(shapes)) > 1:
        found = ", ".join(sorted({str(list(shape)) for shape in shapes})[:_SHOWN_SHAPES])
        raise InvalidInput(
            f"input {tensor.name!r}: expected pictures of one size in one request; got {found}"
        )
    rows_shape, dtype = (len(pictures), *shapes[0]), tensor.datatype.numpy
    limits.check(len(pictures), prod(rows_shape) * dtype.itemsize, tensor.name)
    rows = np.empty(rows_shape, dtype)
    for row, picture in zip(rows, pictures, strict=True):
        _fill(row, picture, tensor)
    return rows


def _fill(row: Array, picture: Picture, tensor: TensorSpec) -> None:
    """Decode `picture` into `row`. Raises DecodingError."""
    spec = tensor.image
    assert spec is not None
    pixels = np.asarray(_prepare(picture, spec))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    table = _table(spec, tensor.datatype.numpy.str)
    # a view with the channels as its first axis, however the row lies in memory
    channels = row.reshape(pixels.shape[:2])[np.newaxis] if row.ndim == 2 else row
    channels = channels if row.ndim == 2 or spec.channels_first else channels.transpose(2, 0, 1)
    for channel, values in enumerate(channels):
        values[...] = table[channel][pixels[:, :, channel]]


def _open(data: bytes, media_type: str, max_pixels: int) -> Image.Image:
    """Return the picture with its head read."""
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=tuple(FORMATS.values()))
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
    return image


def _prepare(picture: Picture, spec: ImageSpec) -> Image.Image:
    """Return the picture decoded, upright, in the model's mode and size."""
    image = picture.image
    try:
        image.load()
    # damaged bytes, as above
    except Exception as err:
        raise DecodingError(
            f"picture: expected a whole {image.format}; got a damaged or truncated one: "
            f"{brief(str(err), 200)}"
        ) from err
    turn = _TURNS.get(picture.orientation)
    upright = image if turn is None else image.transpose(turn)
    # 16-bit grey, which `convert` would clip to white
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    coloured = upright.convert(spec.mode)
    size = picture.size_for(spec)
    return coloured if coloured.size == size else coloured.resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=64)
def _table(spec: ImageSpec, dtype: str) -> Array:
    """Return what each of the 256 pixel values becomes, for each channel: shape (channels, 256)."""
    channels = 1 if spec.mode == "L" else 3
    mean = np.broadcast_to(np.array(spec.mean), channels)[:, np.newaxis]
    std = np.broadcast_to(np.array(spec.std), channels)[:, np.newaxis]
    return np.asarray((np.arange(256.0) * spec.scale - mean) / std, dtype)

"""`image/png`, `image/jpeg`, `image/webp`, `image/bmp`: one picture, one row.

Resize, colour and scale as `model.yaml` says.

Decoding runs on the CPU pool, never on the loop. A picture's pixels are counted before they are
decoded, so a small file that stands for a huge picture costs nothing. Only the four declared
formats are tried, and a picture must be in the format that its media type names. Pixel values go
through a table of 256 results, which is both exact and the fastest way.
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

_SAME = {"MPO": "JPEG"}
"""What Pillow calls a JPEG with further pictures behind the first, as phones make them."""


def carries(tensors: tuple[TensorSpec, ...]) -> bool:
    """Whether one picture is a whole row: the model has one input, made of a picture."""
    return len(tensors) == 1 and tensors[0].image is not None


def decode(content: Content, spec: ModelSpec) -> dict[str, Array]:
    """Return the picture as the one row of the model's input.

    Raises:
        DecodingError: not a whole picture, or one of another format.
        TooLarge: it has too many pixels.
    """
    tensor = spec.inputs[0]
    return {
        tensor.name: row_from_picture(
            content.body, content.media_type, tensor, content.max_image_pixels
        )[np.newaxis]
    }


def rows_from_pictures(
    pictures: Sequence[tuple[Buffer, str]], tensor: TensorSpec, max_pixels: int
) -> Array:
    """Return pictures, each with its media type, as rows of `tensor`: shape (pictures, *row shape).

    Raises:
        DecodingError: one is not a whole picture.
        TooLarge: one has, or all together have, too many pixels.
        InvalidInput: they differ in size and the model fixes none.
    """
    rows: list[Array] = []
    pixels, channels = 0, 3 if tensor.image is not None and tensor.image.mode == "RGB" else 1
    for body, media_type in pictures:
        rows.append(row_from_picture(body, media_type, tensor, max_pixels))
        pixels += (
            rows[-1].size // channels if tensor.free_axes else 0
        )  # rows of a fixed size are as many as the queue bounds
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

    An empty or generic `media_type` lets the bytes tell the format.
    """
    spec = tensor.image
    if spec is None:
        raise InvalidInput(
            f"input {tensor.name!r}: expected a tensor {tensor.describe()}; got a picture"
        )
    pixels = np.asarray(_prepared(_opened(body, media_type, max_pixels), spec, max_pixels))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    table = _table(spec, tensor.datatype.numpy.str)
    row = np.stack([table[channel][pixels[:, :, channel]] for channel in range(pixels.shape[2])])
    return (row if spec.channels_first else row.transpose(1, 2, 0)).reshape(
        _shape(tensor, row.shape)
    )


def _opened(body: Buffer, media_type: str, max_pixels: int) -> Image.Image:
    if not body:
        raise DecodingError("body: expected a picture; got an empty body")
    try:
        image: Image.Image = Image.open(BytesIO(body), formats=tuple(FORMATS.values()))
    except Image.DecompressionBombError as err:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels; got far more: {err}"
        ) from err
    except Exception as err:  # the decoders raise whatever damaged bytes make them raise
        raise DecodingError(
            "body: expected a PNG, JPEG, WebP or BMP picture; got something else"
        ) from err
    found = _SAME.get(str(image.format), image.format)
    declared = FORMATS.get(ALIASES.get(media_type, media_type), found)
    if found != declared:
        raise DecodingError(f"picture: expected {declared}, as its Content-Type says; got {found}")
    if image.width * image.height > max_pixels:
        raise TooLarge(
            f"picture: expected at most {max_pixels} pixels; got {image.width} x {image.height} = "
            f"{image.width * image.height}",
        )
    return image


def _prepared(image: Image.Image, spec: ImageSpec, max_pixels: int) -> Image.Image:
    try:
        image.load()
    except Exception as err:  # as above
        raise DecodingError(
            f"picture: expected a whole {image.format}; got a damaged or truncated one: {err}"
        ) from err
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # a picture whose notes are garbage is still a picture
        upright = image
    if upright.mode.startswith("I"):  # 16-bit grey, which `convert` would clip to white
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).astype(np.uint8))
    coloured = upright.convert(spec.mode)
    size = (
        coloured.width if spec.width < 0 else spec.width,
        coloured.height if spec.height < 0 else spec.height,
    )
    return coloured if coloured.size == size else coloured.resize(size, Image.Resampling.BILINEAR)


@lru_cache(maxsize=64)
def _table(spec: ImageSpec, dtype: str) -> Array:
    channels = 1 if spec.mode == "L" else 3
    mean = np.broadcast_to(np.array(spec.mean), channels)[:, np.newaxis]
    std = np.broadcast_to(np.array(spec.std), channels)[:, np.newaxis]
    return np.asarray((np.arange(256.0) * spec.scale - mean) / std, dtype)


def _shape(tensor: TensorSpec, found: tuple[int, ...]) -> tuple[int, ...]:
    if len(tensor.shape) == 2:
        return found[1:]
    assert tensor.image is not None
    return found if tensor.image.channels_first else (*found[1:], found[0])

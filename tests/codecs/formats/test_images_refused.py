"""Pictures that are damaged, of another format than they claim, or too large.

They are refused in words, and before they cost anything.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from batcher.codecs.content import Content
from batcher.codecs.format_table import PICTURES, format_named
from batcher.codecs.formats import images
from batcher.core.decoding_limits import NO_LIMITS, DecodingLimits
from batcher.core.spec import TensorSpec
from batcher.errors import DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import (
    MIB,
    damaged,
    decoded_or_refused,
    encoded,
    one_colour_png,
    picture_spec,
    pixels,
    process_memory_below,
)
from tests.support.models import tensor

RGB = picture_spec((3, 4, 6))
FREE = picture_spec((3, -1, -1))
EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a description"
BODIES = {
    "image/png": [
        encoded(pixels()),
        encoded(pixels(), exif=EXIF),
        encoded(Image.fromarray(pixels()).convert("P")),
    ],
    "image/jpeg": [
        encoded(pixels(8, 8), "JPEG"),
        encoded(pixels(8, 8), "JPEG", exif=EXIF, progressive=True),
    ],
    "image/webp": [encoded(pixels(), "WEBP", lossless=True), encoded(pixels(), "WEBP", exif=EXIF)],
    "image/bmp": [encoded(pixels(), "BMP"), encoded(pixels(channels=1), "BMP")],
}


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if the pixels of a picture are decoded."""

    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.parametrize("media_type", BODIES)
def test_an_empty_body_is_refused(media_type: str) -> None:
    with pytest.raises(DecodingError, match="expected a picture; got an empty body"):
        images.decode(Content(b"", media_type), RGB)


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\x04\0\0\0WEBP",
        b"BM",
        bytes(100),
        b"<svg/>",
    ],
)
@pytest.mark.parametrize("media_type", BODIES)
def test_bytes_that_are_no_picture_are_refused(body: bytes, media_type: str) -> None:
    with pytest.raises(DecodingError, match="expected"):
        images.decode(Content(body, media_type), RGB)


@pytest.mark.parametrize("fmt", ["GIF", "TIFF", "PPM", "ICO", "PDF", "EPS"])
def test_other_formats_that_pillow_could_read_are_refused(fmt: str) -> None:
    with pytest.raises(DecodingError, match="expected a PNG, JPEG, WebP or BMP picture"):
        images.decode(Content(encoded(pixels(16, 16), fmt), "image/png"), RGB)


@pytest.mark.parametrize(
    ("fmt", "came"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("BMP", "image/bmp")],
)
@pytest.mark.parametrize(
    "declared", [name for entry in PICTURES for name in (entry.media_type, *entry.aliases)]
)
def test_a_picture_in_another_format_than_declared_is_refused_with_both(
    fmt: str, came: str, declared: str
) -> None:
    body, entry = encoded(pixels(), fmt), format_named(declared)
    assert entry is not None
    if entry.media_type == came:
        images.decode(Content(body, declared), RGB)
    else:
        with pytest.raises(
            DecodingError, match=f"expected {images.FORMATS[entry.media_type]}, .*; got {fmt}"
        ):
            images.decode(Content(body, declared), RGB)


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/bmp", "image/webp"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_picture_is_refused(media_type: str, share: float) -> None:
    body = encoded(
        np.random.default_rng(0).integers(0, 256, (32, 32, 3), "u1"), images.FORMATS[media_type]
    )
    with pytest.raises(DecodingError, match="expected"):
        images.decode(Content(body[: int(len(body) * share)], media_type), RGB)


@given(
    damaged([body for bodies in BODIES.values() for body in bodies]), st.sampled_from(["", *BODIES])
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File")
def test_a_damaged_picture_is_a_row_or_refused(body: bytes, media_type: str) -> None:
    decoded_or_refused(images.decode, body, RGB, media_type=media_type)


@given(st.binary(max_size=64), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.booleans())
@pytest.mark.filterwarnings(
    "ignore:Corrupt EXIF", "ignore:Truncated File", "ignore:Metadata Warning"
)
def test_any_bytes_as_exif_spoil_nothing_but_the_orientation(
    exif: bytes, fmt: str, tiff: bool
) -> None:
    body = encoded(pixels(), fmt, exif=b"Exif\0\0" + (b"II*\0\x08\0\0\0" if tiff else b"") + exif)
    decoded_or_refused(images.decode, body, RGB, media_type=f"image/{fmt.lower()}")


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
def test_a_picture_whose_exif_is_garbage_is_still_a_picture(fmt: str) -> None:
    body = encoded(pixels(), fmt, exif=b"Exif\0\0garbage here")
    assert (
        decoded_or_refused(images.decode, body, RGB, media_type=f"image/{fmt.lower()}") is not None
    )


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_picture_of_100_megapixels_is_refused_without_being_decoded(side: int) -> None:
    body = one_colour_png(side, side)
    assert len(body) < MIB
    with (
        process_memory_below(20 * MIB),
        pytest.raises(TooLarge, match="expected at most 16777216 pixels; got"),
    ):
        images.decode(Content(body, "image/png"), RGB)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_999, 16_383])
def test_a_webp_that_claims_100_megapixels_is_refused_without_memory_for_them(side: int) -> None:
    chunk = b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + bytes(64)
    body = (
        b"RIFF"
        + struct.pack("<I", 12 + len(chunk))
        + b"WEBPVP8L"
        + struct.pack("<I", len(chunk))
        + chunk
    )
    with process_memory_below(20 * MIB), pytest.raises((TooLarge, DecodingError)):
        images.decode(Content(body, "image/webp"), RGB)


@pytest.mark.usefixtures("no_decoding")
def test_a_picture_over_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(TooLarge, match="expected at most 23 pixels; got 6 x 4 = 24"):
        images.decode(Content(encoded(pixels()), "image/png", max_image_pixels=23), RGB)


def test_a_picture_exactly_at_the_limit_is_taken() -> None:
    assert images.decode(Content(encoded(pixels()), "image/png", max_image_pixels=24), RGB)[
        "x"
    ].shape == (1, 3, 4, 6)


@pytest.mark.usefixtures("no_decoding")
def test_a_line_of_pixels_that_would_be_stretched_beyond_the_limit_is_refused() -> None:
    spec = picture_spec((3, 8, -1))
    with pytest.raises(TooLarge, match="at most 100 pixels after resizing; got 104 x 8"):
        images.decode(Content(encoded(pixels(1, 13)), "image/png", max_image_pixels=100), spec)


def free_rows(*pictures: bytes, max_pixels: int) -> tuple[int, ...]:
    spec: TensorSpec = FREE.inputs[0]
    found = [images.opened(picture, "image/png", spec, max_pixels) for picture in pictures]
    images.check_together(found, max_pixels)
    return images.rows_from_pictures(found, spec, NO_LIMITS).shape


@pytest.mark.usefixtures("no_decoding")
def test_pictures_of_one_request_are_counted_together_before_the_first_is_decoded() -> None:
    with pytest.raises(TooLarge, match="at most 192 pixels in one request; got 216 in 9 pictures"):
        free_rows(*[encoded(pixels())] * 9, max_pixels=24)


def test_as_many_pixels_as_the_limit_says_are_taken_together() -> None:
    assert free_rows(*[encoded(pixels())] * 8, max_pixels=24) == (8, 3, 4, 6)


@pytest.mark.usefixtures("no_decoding")
def test_rows_beyond_what_the_queue_can_hold_are_refused_before_the_first_is_decoded() -> None:
    body = encoded(pixels())
    limits = DecodingLimits(max_bytes=3 * 4 * 6 * 4 - 1)
    with pytest.raises(TooLarge, match="max_queue_bytes"):
        images.decode(Content(body, "image/png", limits=limits), FREE)


def test_pictures_of_different_sizes_cannot_share_a_request_if_the_model_fixes_none() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"expected pictures of one size in one request; got \[3, 4, 6\], \[3, 5, 6\]",
    ):
        free_rows(encoded(pixels(4, 6)), encoded(pixels(5, 6)), max_pixels=1000)


def test_a_picture_for_an_input_that_is_none_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"input 'x': expected a tensor FP32\[-1,4\]; got a picture"
    ):
        images.opened(encoded(pixels()), "image/png", tensor(), 1000)


def test_a_picture_is_a_whole_row_only_of_a_model_with_one_picture_input() -> None:
    assert images.carries(RGB.inputs)
    assert not images.carries((tensor("x"),))
    assert not images.carries(RGB.inputs * 2)

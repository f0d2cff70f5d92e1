"""`image/*`: every kind of picture that clients send becomes the row of `model.yaml`."""

from __future__ import annotations

from io import BytesIO
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batcher.codecs.content import Content
from batcher.codecs.formats import images
from batcher.core.spec import Array, ModelSpec, check_inputs
from tests.support.codec_inputs import encoded, picture_spec, pixels

RGB = picture_spec((3, -1, -1))
GREY = picture_spec((1, -1, -1), "L")
FORMATS = [
    ("image/png", "PNG"),
    ("image/jpeg", "JPEG"),
    ("image/webp", "WEBP"),
    ("image/bmp", "BMP"),
]
ORIENTATION = 0x0112


def decode(body: bytes, spec: ModelSpec = RGB, media_type: str = "image/png") -> Array:
    """Return the one row."""
    inputs = images.decode(Content(body, media_type), spec)
    assert check_inputs(spec, inputs) == 1
    return inputs["x"][0]


def bytes_of(row: Array) -> Array:
    """Return a row that was divided by 255 as the pixels that it came from."""
    return np.rint(row * 255).astype("u1")


def channels_first(picture: Array) -> Array:
    return picture.transpose(2, 0, 1)


@pytest.mark.parametrize(("media_type", "fmt"), [pair for pair in FORMATS if pair[1] != "JPEG"])
def test_a_picture_without_loss_arrives_pixel_by_pixel(media_type: str, fmt: str) -> None:
    picture = pixels()
    options = {"lossless": True} if fmt == "WEBP" else {}
    np.testing.assert_array_equal(
        bytes_of(decode(encoded(picture, fmt, **options), media_type=media_type)),
        channels_first(picture),
    )


def test_a_jpeg_arrives_as_pillow_decodes_it() -> None:
    body = encoded(pixels(16, 16), "JPEG")
    expected = np.asarray(Image.open(BytesIO(body)).convert("RGB"))
    np.testing.assert_array_equal(
        bytes_of(decode(body, media_type="image/jpeg")), channels_first(expected)
    )


@given(st.integers(1, 9), st.integers(1, 9), st.binary(min_size=243, max_size=243))
@settings(max_examples=40)
def test_any_png_arrives_pixel_by_pixel(height: int, width: int, values: bytes) -> None:
    picture = np.frombuffer(values, "u1")[: height * width * 3].reshape(height, width, 3)
    np.testing.assert_array_equal(bytes_of(decode(encoded(picture))), channels_first(picture))


def test_every_pixel_value_divided_by_255_is_the_float32_that_training_used() -> None:
    ramp = np.arange(256, dtype="u1").reshape(16, 16)
    row = decode(encoded(ramp), GREY)
    np.testing.assert_array_equal(row[0], ramp.astype("f4") / np.float32(255))


def test_a_body_may_be_a_view_of_a_larger_buffer() -> None:
    view = memoryview(b"xx" + encoded(pixels()) + b"yy")[2:-2]
    assert images.decode(Content(view, "image/png"), RGB)["x"].shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("mode", "spec"), list(product(["1", "L", "LA", "P", "RGB", "RGBA"], [RGB, GREY]))
)
def test_every_colour_mode_is_turned_into_the_models(mode: str, spec: ModelSpec) -> None:
    picture = Image.fromarray(pixels()).convert(mode)
    expected = np.asarray(picture.convert("RGB" if spec is RGB else "L"))
    found = bytes_of(decode(encoded(picture), spec))
    np.testing.assert_array_equal(
        found, channels_first(expected) if spec is RGB else expected[np.newaxis]
    )


def test_the_palette_of_a_picture_may_hold_transparency() -> None:
    picture = Image.fromarray(pixels(channels=1), "L").convert("P")
    body = encoded(picture, transparency=0)
    np.testing.assert_array_equal(
        bytes_of(decode(body)), channels_first(np.asarray(picture.convert("RGB")))
    )


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    deep = np.array([[0, 257, 0x7F7F, 0xFFFF]], "u2")
    np.testing.assert_array_equal(
        bytes_of(decode(encoded(Image.fromarray(deep)), GREY))[0], [[0, 1, 127, 255]]
    )


def test_16_bit_grey_may_be_asked_for_in_colour() -> None:
    deep = np.array([[0, 0x8080]], "u2")
    np.testing.assert_array_equal(
        bytes_of(decode(encoded(Image.fromarray(deep))))[:, 0, 1], [128, 128, 128]
    )


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)])
def test_a_cmyk_jpeg_is_read_in_its_own_colours(ink: tuple[int, int, int, int]) -> None:
    picture = Image.new("CMYK", (16, 16), ink)
    expected = np.asarray(picture.convert("RGB"))[0, 0]
    found = bytes_of(decode(encoded(picture, "JPEG", quality=100), media_type="image/jpeg"))[
        :, 8, 8
    ]
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_a_picture_is_turned_upright_as_its_exif_says(orientation: int, fmt: str) -> None:
    upright = pixels()
    undo = {  # what a camera held that way would have stored
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if fmt == "WEBP" else {}
    body = encoded(np.ascontiguousarray(undo[orientation]), fmt, exif=exif, **options)
    np.testing.assert_array_equal(
        bytes_of(decode(body, media_type=f"image/{fmt.lower()}")), channels_first(upright)
    )


def test_a_photo_of_a_phone_that_holds_a_second_picture_is_a_jpeg() -> None:
    second = Image.fromarray(pixels(2, 2))
    body = encoded(pixels(8, 8), "MPO", save_all=True, append_images=[second])
    assert decode(body, media_type="image/jpeg").shape == (3, 8, 8)


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_of_a_moving_picture_the_first_frame_is_taken(fmt: str) -> None:
    first, later = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    body = encoded(first, fmt, save_all=True, append_images=[later], duration=100)
    row = decode(body, media_type=f"image/{fmt.lower()}")
    assert row[0].min() > 0.9
    assert row[2].max() < 0.1


@pytest.mark.parametrize(
    ("shape", "mode", "expected"),
    [
        ((3, 2, 3), "RGB", (3, 2, 3)),
        ((2, 3, 3), "RGB", (2, 3, 3)),
        ((1, 2, 3), "L", (1, 2, 3)),
        ((2, 3, 1), "L", (2, 3, 1)),
        ((2, 3), "L", (2, 3)),
        ((3, -1, 3), "RGB", (3, 2, 3)),
        ((3, 2, -1), "RGB", (3, 2, 3)),
        ((1, -1, 30), "L", (1, 20, 30)),
        ((40, -1), "L", (40, 60)),
        ((-1, 1), "L", (1, 1)),
        ((-1, -1), "L", (4, 6)),
        ((-1, -1, 3), "RGB", (4, 6, 3)),
    ],
)
def test_size_and_layout_follow_from_the_shape(
    shape: tuple[int, ...], mode: str, expected: tuple[int, ...]
) -> None:
    assert decode(encoded(pixels()), picture_spec(shape, mode)).shape == expected


def test_a_free_width_keeps_the_proportions_of_a_picture_that_lies_on_its_side() -> None:
    image, body = Image.fromarray(pixels()), BytesIO()
    exif = image.getexif()
    exif[ORIENTATION] = 6
    image.save(body, "PNG", exif=exif)
    assert decode(body.getvalue(), picture_spec((3, 12, -1))).shape == (3, 12, 8)


def test_channels_last_holds_the_same_pixels_as_channels_first() -> None:
    body = encoded(pixels())
    last, first = decode(body, picture_spec((4, 6, 3))), decode(body, picture_spec((3, 4, 6)))
    np.testing.assert_array_equal(last, first.transpose(1, 2, 0))


def test_a_flat_grey_row_holds_the_same_pixels_as_one_channel() -> None:
    body = encoded(pixels(channels=1))
    np.testing.assert_array_equal(
        decode(body, picture_spec((4, 6), "L")), decode(body, picture_spec((1, 4, 6), "L"))[0]
    )


def test_a_picture_of_another_size_is_resized_bilinearly() -> None:
    picture = Image.fromarray(pixels(12, 10))
    expected = np.asarray(picture.resize((5, 7), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(
        bytes_of(decode(encoded(picture), picture_spec((3, 7, 5)))), channels_first(expected)
    )


@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64"])
def test_mean_and_std_are_taken_for_each_channel(dtype: str) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    row = decode(encoded(pixels()), picture_spec((3, 4, 6), dtype=dtype, mean=mean, std=std))
    expected = (channels_first(pixels()) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(
        std, (3, 1, 1)
    )
    assert row.dtype == np.dtype({"FP16": "f2", "FP32": "f4", "FP64": "f8"}[dtype])
    np.testing.assert_allclose(
        row,
        expected,
        rtol=1e-3 if dtype == "FP16" else 1e-6,
        atol=1e-3 if dtype == "FP16" else 1e-6,
    )


def test_one_mean_and_std_serve_every_channel() -> None:
    row = decode(encoded(pixels()), picture_spec((3, 4, 6), scale=1.0, mean=(127.5,), std=(127.5,)))
    np.testing.assert_allclose(row, (channels_first(pixels()) - 127.5) / 127.5, rtol=1e-6)


def test_uint8_holds_the_pixels_themselves() -> None:
    row = decode(encoded(pixels()), picture_spec((3, 4, 6), dtype="UINT8", scale=1.0))
    assert row.dtype == np.dtype("u1")
    np.testing.assert_array_equal(row, channels_first(pixels()))

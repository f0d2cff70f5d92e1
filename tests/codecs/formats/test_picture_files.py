"""Notes in pictures: large ones spoil nothing, bombs cost nothing, too many parts are refused."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from batcher.codecs.content import Content
from batcher.codecs.formats import images
from batcher.codecs.formats.orientation import orientation_of
from batcher.codecs.formats.picture_files import (
    MAX_CHUNKS,
    MAX_FILL_BYTES,
    MAX_SCANS,
    MAX_SEGMENTS,
    without_notes,
)
from batcher.core.spec import Array
from batcher.errors import DecodingError, TooLarge
from tests.support.codec_inputs import MIB, encoded, picture_spec, pixels, process_memory_below

RGB = picture_spec((3, 4, 6))
PICTURE = Image.fromarray(pixels())
PNG = encoded(PICTURE)
JPEG = encoded(PICTURE, "JPEG", quality=100)
COMMENT = b"\xff\xfe\x00\x02"


def decode(body: bytes, media_type: str = "image/png") -> Array:
    return images.decode(Content(body, media_type), RGB)["x"]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(chunks: bytes, before: bytes = b"IDAT") -> bytes:
    place = PNG.index(before) - 4
    return PNG[:place] + chunks + PNG[place:]


def segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


@cache
def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(megabytes)) + packer.flush()


def scanned(body: bytes, times: int) -> bytes:
    """Return a JPEG whose last scan comes `times` times."""
    place = body.rindex(b"\xff\xda")
    return body[:place] + body[place:-2] * times + body[-2:]


def texts(*, compressed: bool) -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add_text("x", "a" * 2_000_000, zip=compressed)
    found.add_itxt("y", "é" * 1_000_000, zip=compressed)
    return found


NOISE = os.urandom(2 * MIB)
NOTED: dict[str, Callable[[], bytes]] = {
    "PNG, packed texts of megabytes": lambda: encoded(PICTURE, pnginfo=texts(compressed=True)),
    "PNG, plain texts of megabytes": lambda: encoded(PICTURE, pnginfo=texts(compressed=False)),
    "PNG, a colour profile of 2 MiB": lambda: encoded(PICTURE, icc_profile=NOISE),
    "PNG, a text behind the pixels": lambda: with_chunks(chunk(b"tEXt", b"k\0" + NOISE), b"IEND"),
    "PNG, a bomb in a text": lambda: with_chunks(chunk(b"zTXt", b"k\0\0" + bomb(300))),
    "PNG, a bomb in a colour profile": lambda: with_chunks(chunk(b"iCCP", b"k\0\0" + bomb(300))),
    "PNG, a bomb in an international text": lambda: with_chunks(
        chunk(b"iTXt", b"k\0\1\0\0\0" + bomb(300))
    ),
    "PNG, many texts": lambda: with_chunks(
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MIB))) * 70
    ),
}
"""Pictures with notes; each is made by its test, since bombs take seconds to make."""


@pytest.mark.parametrize("make", NOTED.values(), ids=NOTED)
def test_a_png_with_notes_is_decoded_as_without(make: Callable[[], bytes]) -> None:
    body = make()
    with process_memory_below(40 * MIB):
        row = decode(body)
    np.testing.assert_array_equal(row, decode(PNG))


@pytest.mark.parametrize(
    "notes",
    [
        b"".join(segment(0xE2, b"ICC_PROFILE\0\1\1" + NOISE[:65_000]) for _ in range(32)),
        b"".join(segment(0xE1, b"Exif\0\0" + bytes(65_000)) for _ in range(200)),
        segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + JPEG[:5000]),
        segment(0xFE, b"a comment"),
        b"\xff" * 500,
    ],
    ids=["a colour profile", "EXIF in pieces", "a thumbnail", "a comment", "fill bytes"],
)
def test_a_jpeg_with_notes_is_decoded_as_without(notes: bytes) -> None:
    noted = JPEG[:2] + notes + JPEG[2:]
    assert len(without_notes(noted).data) <= len(JPEG)
    np.testing.assert_array_equal(decode(noted, "image/jpeg"), decode(JPEG, "image/jpeg"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_notes_has_the_same_pixels_in_every_colour_space(
    mode: str, progressive: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 56, 3), "u1")
    body = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)
    found = without_notes(body)
    assert found.scans == body.count(b"\xff\xda")
    with Image.open(BytesIO(body)) as plain, Image.open(BytesIO(found.data)) as stripped:
        np.testing.assert_array_equal(np.asarray(plain), np.asarray(stripped))


def test_many_notes_that_share_one_value_are_not_copied() -> None:
    entries = b"".join(struct.pack("<HHII", 300 + n, 7, 8 * MIB, 8) for n in range(5000))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries + bytes(8 * MIB)
    body = with_chunks(chunk(b"eXIf", exif))
    with process_memory_below(40 * MIB):
        np.testing.assert_array_equal(decode(body), decode(PNG))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (with_chunks(chunk(b"aaAa", b"") * MAX_CHUNKS), "PNG of at most 65536 chunks"),
        (b"RIFF\0\0\0\0WEBP" + b"ANMF\0\0\0\0" * (MAX_CHUNKS + 1), "WebP of at most 65536 chunks"),
        (JPEG[:2] + COMMENT * MAX_SEGMENTS + JPEG[2:], "JPEG of at most 2048 segments"),
        (JPEG[:2] + b"\xff" * (4 * MIB) + JPEG[2:], "at most 1024 bytes between segments"),
        (JPEG[:2] + bytes(MAX_FILL_BYTES + 1) + JPEG[2:], "at most 1024 bytes between segments"),
        (scanned(JPEG, MAX_SCANS + 1), "JPEG of at most 100 scans"),
        (
            b"BM" + struct.pack("<12xIiiHHI", 40, 2000, -600, 1, 8, 1) + bytes(100),
            "BMP in run-length coding of at most 1048576 bytes .* got 134 bytes and 2000 x 600",
        ),
    ],
    ids=["chunks", "frames", "segments", "fill", "junk", "scans", "run length"],
)
def test_a_picture_of_too_many_parts_is_refused_by_the_limit(body: bytes, complaint: str) -> None:
    with pytest.raises(DecodingError, match=complaint):
        without_notes(body)


def test_scans_are_counted_together_with_the_pixels_that_each_goes_over() -> None:
    body = scanned(encoded(PICTURE, "JPEG", progressive=True), 40)
    content = Content(body, "image/jpeg", max_image_pixels=24)
    with pytest.raises(TooLarge, match=r"at most 20 scans of 24 pixels; got 4\d scans"):
        images.decode(content, RGB)
    assert images.decode(content._replace(max_image_pixels=100), RGB)["x"].shape == (1, 3, 4, 6)


def exif_of(order: str, *entries: tuple[int, int, int, int]) -> bytes:
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    listed = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + listed


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (exif_of("<", (0x0112, 3, 1, 6)), 6),
        (exif_of(">", (0x0100, 3, 1, 9), (0x0112, 3, 1, 8)), 8),
        (b"Exif\0\0" + exif_of("<", (0x0112, 3, 1, 3)), 3),
        (exif_of("<", (0x0112, 3, 1, 9)), 1),
        (exif_of("<", (0x0112, 4, 1, 6)), 1),
        (exif_of("<", (0x0112, 3, 2, 6)), 1),
        (exif_of("<", *[(0x0100, 3, 1, 1)] * 600, (0x0112, 3, 1, 6)), 1),
        (exif_of("<", (0x0112, 3, 1, 6))[:-1], 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"II*\0\x08\0\0\0", 1),
        (b"", 1),
        (b"garbage and more of it", 1),
    ],
)
def test_the_orientation_is_read_or_taken_for_upright(exif: bytes, orientation: int) -> None:
    assert orientation_of(exif) == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(1).integers(0, 256, (16, 32, 3), "u1")
    body = encoded(Image.fromarray(noise), "JPEG", exif=exif)
    assert without_notes(body).orientation == orientation
    spec = picture_spec((3, -1, -1))
    row = images.decode(Content(body, "image/jpeg"), spec)["x"]
    assert row.shape == ((1, 3, 32, 16) if orientation > 4 else (1, 3, 16, 32))

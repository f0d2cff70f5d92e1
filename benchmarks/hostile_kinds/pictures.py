"""Pictures at their worst: bombs, scans, notes, chunks, and honest ones that are large."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO

from PIL import Image

from benchmarks.hostile_kinds.binaries import FORM, PICTURES, part
from benchmarks.hostile_kinds.bodies import Body
from benchmarks.hostile_kinds.kind import LIMIT

SIDE = 4096
"""Pixels: a picture of this side is of as many pixels as a server takes by default."""

SCENES = "/models/scenes/predict"


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, notes: bytes = b"", cuts: int = 1, colour: int = 2) -> bytes:
    """Return a black PNG.

    Args:
        side: pixels of width and height.
        notes: chunks between its head and its data.
        cuts: pieces into which the data are cut; empty pieces are added behind them.
        colour: 0 for grey, 2 for colours.
    """
    rows = b"\0" * (1 + side * (3 if colour else 1))
    pack = zlib.compressobj(9)
    data = b"".join([pack.compress(rows) for _ in range(side)]) + pack.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    empty = chunk(b"IDAT", b"") * (cuts - 1)
    body = chunk(b"IHDR", head) + notes + chunk(b"IDAT", data) + empty + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(form: str, side: int = SIDE, noise: bool = True, **options: object) -> bytes:
    """Return a picture as Pillow writes it."""
    image = Image.effect_noise((side, side), 60).convert("RGB") if noise else None
    file = BytesIO()
    (image or Image.new("RGB", (side, side))).save(file, form, **options)
    return file.getvalue()


def scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is there again and again."""
    plain = saved("JPEG", noise=False, progressive=True)
    last, end = plain.rindex(b"\xff\xda"), plain.rindex(b"\xff\xd9")
    return plain[:last] + plain[last:end] * count + plain[end:]


def jpeg_marks(mark: bytes) -> bytes:
    """Return a JPEG with as many segments `mark` before its data as 64 MiB hold."""
    plain = saved("JPEG", side=64, noise=False)
    return plain[:2] + mark * ((LIMIT - len(plain)) // len(mark)) + plain[2:]


def text_bombs(kind: bytes, count: int) -> bytes:
    """Return compressed text chunks that each stand for a mebibyte."""
    packed = zlib.compress(bytes(1 << 20), 9)
    between = {b"zTXt": b"\0\0", b"iTXt": b"\0\1\0\0\0", b"iCCP": b"\0\0"}[kind]
    return chunk(kind, b"note" + between + packed) * count


def notes(size: int) -> bytes:
    """Return as many small text chunks as `size` bytes hold."""
    one = chunk(b"tEXt", b"k\0v")
    return one * (size // len(one))


def form_of(picture: bytes, count: int) -> bytes:
    """Return a form with the same picture `count` times."""
    return part(picture, head=b"Content-Type: image/png\r\n") * count + b"--b--\r\n"


def _picture(name: str, form: str, make: Callable[[], bytes], path: str = PICTURES) -> Body:
    return Body(f"picture_{name}", path, f"image/{form}", make)


PICTURE_BODIES = (
    _picture("png", "png", lambda: saved("PNG", compress_level=1)),
    _picture("jpeg", "jpeg", lambda: saved("JPEG", quality=95)),
    _picture("webp", "webp", lambda: saved("WEBP", quality=50, method=0)),
    _picture("bmp", "bmp", lambda: saved("BMP")),
    _picture("png as it is", "png", lambda: png(SIDE), SCENES),
    _picture("bomb over the limit", "png", lambda: png(20_000, colour=0)),
    _picture("bomb at the limit", "png", lambda: png(SIDE)),
    _picture("progressive", "jpeg", lambda: saved("JPEG", quality=95, progressive=True)),
    _picture("500 scans", "jpeg", lambda: scans(500)),
    _picture("200,000 scans", "jpeg", lambda: scans(200_000)),
    _picture("zTXt bombs", "png", lambda: png(64, text_bombs(b"zTXt", 20_000))),
    _picture("iTXt bombs", "png", lambda: png(64, text_bombs(b"iTXt", 20_000))),
    _picture("iCCP bombs", "png", lambda: png(64, text_bombs(b"iCCP", 20_000))),
    _picture("notes", "png", lambda: png(64, notes(LIMIT - 4096))),
    _picture("empty chunks", "png", lambda: png(64, cuts=(LIMIT - 4096) // 12)),
    _picture("jpeg comments", "jpeg", lambda: jpeg_marks(b"\xff\xfe\0\2")),
    _picture("jpeg profiles", "jpeg", lambda: jpeg_marks(b"\xff\xe2\0\x0eICC_PROFILE\0")),
    _picture("jpeg fill", "jpeg", lambda: jpeg_marks(b"\xff")),
    Body("form_pictures", PICTURES, FORM, lambda: form_of(png(1), 4096)),
    Body("form_bombs", PICTURES, FORM, lambda: form_of(png(SIDE), 250)),
    Body("form_scenes", SCENES, FORM, lambda: form_of(png(SIDE), 250)),
)

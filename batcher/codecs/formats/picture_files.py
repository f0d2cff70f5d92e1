"""A picture file without its notes: only what says how the pixels are decoded.

Phones and editors put colour profiles, thumbnails and texts of megabytes into a picture, and a
hostile client puts bombs there. Pillow reads all of these, some in quadratic time, and the server
needs none of them but the orientation. So the file is walked first, in time linear in its length,
and Pillow gets a file without them:

| format | what stays | limits |
|---|---|---|
| PNG | the first picture: `IHDR`, `PLTE`, `tRNS`, `IDAT`, `IEND` | chunks |
| JPEG | the first picture: tables, frame, scans; `JFIF` and `Adobe` marks | segments, scans |
| WebP | the whole file, which libwebp reads | chunks, and so the frames of a moving picture |
| BMP | the whole file, which has no notes | bytes and pixels in run-length coding |
"""

from __future__ import annotations

import re
from struct import Struct
from typing import NamedTuple

from batcher.codecs.formats.orientation import UPRIGHT, orientation_of
from batcher.errors import DecodingError

MAX_CHUNKS = 1 << 16
"""Most chunks of a PNG or WebP: 64 MiB in chunks of 1 KiB, walked in 50 ms."""

MAX_SEGMENTS = 2048
"""Most segments of a JPEG; 64 MiB of notes are 1024 segments."""

MAX_FILL_BYTES = 1024
"""Most bytes of a JPEG that belong to no segment, such as fill bytes between segments."""

MAX_SCANS = 100
"""Most scans of a JPEG; encoders write 10 to 20."""

MAX_RUN_LENGTH_BYTES = 1 << 20
"""Most bytes, and most pixels, of a BMP in run-length coding, which Pillow decodes in Python."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_CHUNK = Struct(">I4s")
_PNG_CHUNK_FRAME_BYTES = 12
_RIFF_CHUNK = Struct("<4sI")
_BMP_HEAD = Struct("<14xIii2xHI")
_BMP_RUN_LENGTH = (1, 2)
_SEGMENT = Struct(">H")
_SEARCHED_BYTES = 1 << 20
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END = 0xDA, 0xD9
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xDC})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


class PictureFile(NamedTuple):
    """A picture file whose notes are gone.

    Attributes:
        data: the file.
        orientation: how its pixels are turned, as EXIF counts: 1 is upright.
        scans: how often a decoder goes over all pixels.
    """

    data: bytes
    orientation: int = UPRIGHT
    scans: int = 1


def without_notes(body: bytes) -> PictureFile:
    """Return the picture file `body` without its notes; any other file as it is.

    A damaged file may come back damaged in another way: its decoder refuses it.

    Raises:
        DecodingError: the file has more parts than a limit allows.
    """
    if body.startswith(_PNG_SIGNATURE):
        return _png(body)
    if body.startswith(b"\xff\xd8"):
        return _JpegWalk(body).picture()
    if body.startswith(b"RIFF"):
        return _webp(body)
    if body.startswith(b"BM"):
        _check_bmp(body)
    return PictureFile(body)


def _png(body: bytes) -> PictureFile:
    view = memoryview(body)  # whose parts are no copies
    kept: list[memoryview] = [view[: len(_PNG_SIGNATURE)]]
    exif, place = b"", len(_PNG_SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if place + _PNG_CHUNK.size > len(body):
            break
        length, kind = _PNG_CHUNK.unpack_from(body, place)
        end = place + length + _PNG_CHUNK_FRAME_BYTES
        # Pillow reads IDAT by IDAT in Python, also those that hold nothing
        if kind in _PNG_KEPT and (length or kind == b"IEND"):
            kept.append(view[place:end])
        elif kind == b"eXIf":
            exif = body[place + _PNG_CHUNK.size : end - 4]
        place = end
        if kind == b"IEND":
            break
    else:
        raise _too_many("PNG", "chunks", MAX_CHUNKS)
    return PictureFile(b"".join(kept), orientation_of(exif))


def _webp(body: bytes) -> PictureFile:
    exif, place = b"", 12
    for _ in range(MAX_CHUNKS):
        if place + _RIFF_CHUNK.size > len(body):
            break
        kind, length = _RIFF_CHUNK.unpack_from(body, place)
        place += _RIFF_CHUNK.size
        if kind == b"EXIF":
            exif = body[place : place + length]
        place += length + length % 2
    else:
        raise _too_many("WebP", "chunks", MAX_CHUNKS)
    return PictureFile(body, orientation_of(exif))


def _check_bmp(body: bytes) -> None:
    if len(body) < _BMP_HEAD.size:
        return
    _, width, height, _, compression = _BMP_HEAD.unpack_from(body)
    if compression in _BMP_RUN_LENGTH and (
        max(len(body), abs(width * height)) > MAX_RUN_LENGTH_BYTES
    ):
        raise DecodingError(
            f"picture: expected a BMP in run-length coding of at most {MAX_RUN_LENGTH_BYTES} bytes "
            f"and as many pixels; got {len(body)} bytes and {width} x {abs(height)} pixels"
        )


class _JpegWalk:
    """Goes through a JPEG from marker to marker, and keeps what a decoder needs."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._view = memoryview(body)  # whose parts are no copies
        self._kept: list[memoryview] = [self._view[:2]]
        self._exif = b""
        self._scans = 0

    def picture(self) -> PictureFile:
        """Return the file without its notes. Raises DecodingError."""
        place, fill = 2, 0
        for _ in range(MAX_SEGMENTS):
            marked = self._body.find(b"\xff", place)
            begin = self._marker(marked)
            if begin < 0:
                break
            fill += begin - place
            if fill > MAX_FILL_BYTES:
                raise _too_many("JPEG", "bytes between segments", MAX_FILL_BYTES)
            place = self._segment(begin)
            if place < 0:
                break
        else:
            raise _too_many("JPEG", "segments", MAX_SEGMENTS)
        return PictureFile(b"".join(self._kept), orientation_of(self._exif), max(self._scans, 1))

    def _marker(self, place: int) -> int:
        """Return where the marker begins whose fill bytes begin at `place`; -1 at the end."""
        if place < 0:
            return -1
        limit = place + MAX_FILL_BYTES
        while self._body[place : place + 2] == b"\xff\xff" and place <= limit:
            place += 1
        return place if place + 2 <= len(self._body) else -1

    def _segment(self, place: int) -> int:
        """Keep or drop the segment at `place`; return where the next begins, -1 at the end."""
        kind = self._body[place + 1]
        if kind == _END:
            self._kept.append(self._view[place : place + 2])
            return -1
        if kind in _ALONE or kind == 0:
            return place + 2
        if place + 4 > len(self._body):
            return -1
        (length,) = _SEGMENT.unpack_from(self._body, place + 2)
        end: int = place + 2 + length
        if kind == _START_OF_SCAN:
            return self._scan(place, end)
        payload = self._body[place + 4 : min(end, place + 16)]
        if kind in _TABLES or kind in _FRAMES or payload.startswith((b"JFIF\0", b"Adobe")):
            self._kept.append(self._view[place:end])
        elif kind == 0xE1 and payload.startswith(b"Exif\0\0") and not self._exif:
            self._exif = self._body[place + 10 : end]
        return end

    def _scan(self, place: int, end: int) -> int:
        """Keep the scan at `place`, whose head ends at `end`; return where it ends itself."""
        self._scans += 1
        if self._scans > MAX_SCANS:
            raise _too_many("JPEG", "scans", MAX_SCANS)
        stop = self._end_of_scan(end)
        self._kept.append(self._view[place : stop if stop >= 0 else len(self._body)])
        return stop

    def _end_of_scan(self, begin: int) -> int:
        """Return where the first marker behind `begin` is that ends a scan; -1 if there is none."""
        # Between two searches other threads run; one over 64 MiB can take half a second.
        for place in range(begin, len(self._body), _SEARCHED_BYTES):
            found = _MARKER_IN_SCAN.search(self._body, place, place + _SEARCHED_BYTES + 1)
            if found is not None:
                return found.start()
        return -1


def _too_many(fmt: str, what: str, most: int) -> DecodingError:
    return DecodingError(f"picture: expected a {fmt} of at most {most} {what}; got more")

"""How a picture is turned, by its EXIF notes: a number of 1, upright, to 8.

Pillow would read all of the notes. They can name a thousand values that share the same sixty
megabytes, and each value would become a copy.
"""

from __future__ import annotations

from struct import Struct

UPRIGHT = 1

MAX_ENTRIES = 512
"""Most notes that are looked at; cameras write less than 50 into the first directory."""

_ORIENTATION, _SHORT = 0x0112, 3
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation_of(exif: bytes) -> int:
    """Return the orientation that the notes `exif` say; 1 if they say none or are damaged."""
    exif = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = _ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (directory,) = Struct(f"{order}I").unpack_from(exif, 4)
    if directory + 2 > len(exif):
        return UPRIGHT
    (count,) = Struct(f"{order}H").unpack_from(exif, directory)
    entry = Struct(f"{order}HHIH2x")
    room = (len(exif) - directory - 2) // entry.size
    for number in range(min(count, room, MAX_ENTRIES)):
        tag, kind, values, value = entry.unpack_from(exif, directory + 2 + number * entry.size)
        if tag == _ORIENTATION:
            fits = kind == _SHORT and values == 1 and 1 <= value <= 8
            return int(value) if fits else UPRIGHT
    return UPRIGHT

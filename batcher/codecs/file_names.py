"""The format of a file by its name.

Used for the files that `batcher predict` posts, and for the samples beside models.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path

from batcher.codecs.format_table import Format, format_named
from batcher.errors import UnsupportedMediaType

_EXTENSIONS = {
    ".npy": "application/x-npy",
    ".msgpack": "application/msgpack",
    ".mpk": "application/msgpack",
    ".bin": "application/octet-stream",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
"""Extensions that the standard library does not know on every system, to their media types."""


def format_of_file(file: Path) -> Format:
    """Return the format that the extension of `file` stands for.

    Raises:
        UnsupportedMediaType: the extension stands for no format.
    """
    suffix = file.suffix.lower()
    found = format_named(_EXTENSIONS.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0] or "")
    if found is None:
        raise UnsupportedMediaType(
            f"{file}: expected a file named .json, .csv, .png, .npy or the like; got "
            f"{file.suffix!r}"
        )
    return found

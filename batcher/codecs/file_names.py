"""The media type of a file by its name.

Used for the files that `batcher predict` posts, and for the samples beside models.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path

_EXTENSIONS = {
    ".npy": "application/x-npy",
    ".msgpack": "application/msgpack",
    ".mpk": "application/msgpack",
    ".bin": "application/octet-stream",
    ".jsonl": "application/jsonlines",
    ".ndjson": "application/jsonlines",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
"""Extensions that the standard library does not know on every system, to their media types."""


def media_type_of_file(file: Path) -> str:
    """Return the media type that the extension of `file` stands for.

    An extension that nobody knows stands for plain bytes, `application/octet-stream`.
    """
    suffix = file.suffix.lower()
    found = _EXTENSIONS.get(suffix) or mimetypes.guess_type(f"file{suffix}")[0]
    return found or "application/octet-stream"

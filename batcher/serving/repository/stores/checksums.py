"""What the content of a file is compared with: `SHA256SUMS`, or else the store's own checksum.

| who says                         | what is compared |
|---|---|
| `SHA256SUMS` beside `model.yaml` | the SHA-256 of every file in it, as `sha256sum` writes it |
| a tag `sha256:…`                 | the SHA-256 of the file: an index of a web server |
| a tag of 64 hexadecimal digits   | the SHA-256 of the file: some web servers |
| a tag of 32 hexadecimal digits   | the MD5 of the file: S3 and Google Cloud Storage |
| such a tag with `-` and a number | the MD5 of the MD5s of parts of an upload, of the usual sizes |

A bucket that encrypts with a key of its own (SSE-KMS) has tags that look like an MD5 and are none.
Then not one file of a version fits its tag, while a damaged file is one among others that fit. So
where no tag fits, and there are at least two, tags tell nothing, and sizes alone are compared. The
tag of an upload in parts counts as one that does not fit. What an index says is no such tag.

A `SHA256SUMS` itself is compared with nothing: were it damaged, a file would not fit it. In such a
bucket it would be the only file that is held against its tag.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from batcher.errors import ConfigError
from batcher.serving.repository.stores.store import StoredFile

SUMS = "SHA256SUMS"
"""The file that names every file of a version with its SHA-256."""

SAID = "sha256:"
"""Begins the tag of a file whose SHA-256 an index says."""

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"([0-9a-f]{32})-([0-9]{1,5})")
MIB = 1 << 20
PART_SIZES = (5 * MIB, 8 * MIB, 10 * MIB, 15 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 100 * MIB)
"""Bytes of one part of an upload, of the usual programs: aws and boto3 8 MiB, rclone 5 MiB, …"""


def read_sums(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file that the text of a `SHA256SUMS` names. Raises ConfigError.

    A line about that file itself says what the file was before it was written: `find` finds it too.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.rstrip())
        if match:
            found[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip():
            raise ConfigError(f"{SUMS}:{number}: expected a SHA-256 and the name of a file")
    found.pop(SUMS, None)
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged(folder: Path, files: Sequence[StoredFile], sums: dict[str, str]) -> list[str]:
    """Return the names of the `files` in `folder` whose content is not what it should be.

    `sums` are those of `SHA256SUMS`; other files are compared with their tags. Raises OSError.
    """
    wrong, fits, fits_not, unclear = [], 0, [], 0
    for file in files:
        expected = sums.get(file.name)
        if expected is None and file.tag.startswith(SAID):
            expected = file.tag.removeprefix(SAID).lower()
        if expected is not None:
            wrong += [file.name] * (sha256_of(folder / file.name) != expected)
            continue
        if sums and PurePosixPath(file.name).name == SUMS:
            continue
        verdict = _fits_tag(folder / file.name, file.tag)
        fits += verdict is True
        fits_not += [file.name] * (verdict is False)
        unclear += verdict is None and _PARTS.fullmatch(file.tag.lower()) is not None
    are_tags_sums = fits > 0 or (len(fits_not) == 1 and not unclear)
    return wrong + (fits_not if are_tags_sums else [])


def _fits_tag(path: Path, tag: str) -> bool | None:
    """Return whether the file at `path` has the checksum `tag`; None if `tag` is no checksum."""
    tag = tag.lower()
    if _SHA256.fullmatch(tag):
        return sha256_of(path) == tag
    if _MD5.fullmatch(tag):
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, _md5).hexdigest() == tag
    parts = _PARTS.fullmatch(tag)
    # Of an upload in parts of an unusual size nothing can be said.
    return True if parts and _is_of_parts(path, parts[1], int(parts[2])) else None


def _is_of_parts(path: Path, digest: str, count: int) -> bool:
    size = path.stat().st_size
    sizes = [each for each in PART_SIZES if -(-size // each) == count]
    return any(_digest_of_parts(path, each) == digest for each in sizes)


def _digest_of_parts(path: Path, part: int) -> str:
    whole = _md5()
    with path.open("rb") as stream:
        while content := stream.read(part):
            whole.update(_md5(content).digest())
    return whole.hexdigest()


def _md5(content: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)

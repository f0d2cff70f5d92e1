"""What the list of a zip may hold: files below one folder, and no more bytes than a model has.

A file of a model that is a zip comes from elsewhere, and a zip may hold anything: names with `..`,
absolute names, links, two files of one name, or gigabytes of zeros in a kilobyte. So the list is
looked through before anything is read. It may lie: whoever writes files counts their bytes again.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

from batcher.errors import ModelLoadError

MAX_FILES = 10_000
"""Files of an archive: those of real models have some ten."""

MAX_BYTES = 64 << 30
"""Bytes of all files: weights of the largest models that one machine holds."""

MAX_RATIO = 200
"""Bytes for each byte of the archive: weights of floats shrink to a half, text to a tenth."""

FREE_BYTES = 64 << 20
"""Bytes from which the ratio counts: a small file may well be all zeros."""


def check_entries(entries: list[ZipInfo], file: Path) -> None:
    """Check the list of the archive `file`. Raises ModelLoadError. Any thread."""
    if len(entries) > MAX_FILES:
        raise ModelLoadError(f"{file.name}: expected at most {MAX_FILES} files; got {len(entries)}")
    seen: set[str] = set()
    for entry in entries:
        _check_entry(entry, file.name)
        name = entry.filename.rstrip("/").casefold()
        if name in seen:
            raise _wrong(entry, file.name, "two files of one name")
        seen.add(name)
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES or total > FREE_BYTES + MAX_RATIO * file.stat().st_size:
        raise ModelLoadError(
            f"{file.name}: expected at most {MAX_BYTES} bytes of files, and {MAX_RATIO} for each "
            f"byte of the archive; got {total}"
        )


def _check_entry(entry: ZipInfo, archive: str) -> None:
    """Check that an entry is a file or a folder below the archive's own. Raises ModelLoadError."""
    name = entry.orig_filename
    path = PurePosixPath(name)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or "\\" in name or ":" in name.partition("/")[0] or "\0" in name:
        raise _wrong(entry, archive, "an absolute name, or one of another system")
    if ".." in path.parts or not path.parts:
        raise _wrong(entry, archive, "a name that leads out of it")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _wrong(entry, archive, "a link" if stat.S_ISLNK(kind) else "no file")
    if entry.flag_bits & 1:
        raise _wrong(entry, archive, "a file with a password")


def _wrong(entry: ZipInfo, archive: str, got: str) -> ModelLoadError:
    return ModelLoadError(
        f"{archive}: expected files below the archive's own folder; got {got}: "
        f"{entry.orig_filename!r:.200}"
    )

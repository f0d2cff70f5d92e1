"""An archive is extracted into a folder of its own, and nothing of it lands anywhere else.

An archive comes from elsewhere, and a zip may hold anything: names with `..`, absolute names, links
out of the folder, two files of one name, or gigabytes of zeros in a kilobyte. All of these are
refused before the first file is written; sizes are counted again while files are written, since the
list of a zip may lie.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from batcher.errors import ModelLoadError

MAX_FILES = 10_000
"""Files of an archive: those of real models have some ten."""

MAX_BYTES = 64 << 30
"""Bytes of all files: weights of the largest models that one machine holds."""

MAX_RATIO = 200
"""Bytes for each byte of the archive: weights of floats shrink to a half, text to a tenth."""

FREE_BYTES = 64 << 20
"""Bytes from which the ratio counts: a small file may well be all zeros."""

_COPY_BYTES = 1 << 20


def extract(file: Path, folder: Path) -> None:
    """Extract the archive `file` into `folder`, which is empty.

    Raises:
        ModelLoadError: the file is no zip, or holds what must not be extracted; the message names
            the entry. Nothing is left outside of `folder` in any case.

    Any thread.
    """
    try:
        with ZipFile(file) as archive:
            entries = archive.infolist()
            _check(entries, file)
            for entry in entries:
                _write(archive, entry, folder)
    except (BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as err:
        raise ModelLoadError(
            f"{file.name}: expected an archive that torch-model-archiver has made, a zip; got {err}"
        ) from err


def _check(entries: list[ZipInfo], file: Path) -> None:
    """Check the list of an archive. Raises ModelLoadError."""
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


def _write(archive: ZipFile, entry: ZipInfo, folder: Path) -> None:
    """Write one entry, of no more bytes than the list of the archive says."""
    path = folder / entry.filename
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, path.open("xb") as target:
        while data := source.read(_COPY_BYTES):
            left -= len(data)
            if left < 0:
                raise BadZipFile("a file of more bytes than the list of the archive says")
            target.write(data)

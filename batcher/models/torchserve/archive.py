"""An archive is extracted into a folder of its own, and nothing of it lands anywhere else.

An archive comes from elsewhere, and a zip may hold anything: names with `..`, absolute names, links
out of the folder, two files of one name, or gigabytes of zeros in a kilobyte. All of these are
refused before the first file is written; sizes are counted again while files are written, since the
list of a zip may lie.
"""

from __future__ import annotations

import zlib
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from batcher.errors import ModelLoadError
from batcher.models.zip_entries import check_entries

_COPY_BYTES = 1 << 20

_DAMAGED = (BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError, zlib.error, LZMAError)
"""What Python raises for a zip that is damaged, or that it cannot read."""


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
            check_entries(entries, file)
            for entry in entries:
                _write(archive, entry, folder)
    except _DAMAGED as err:
        raise ModelLoadError(
            f"{file.name}: expected an archive that torch-model-archiver has made, a zip; got {err}"
        ) from err


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

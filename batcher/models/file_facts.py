"""Whether a file is still the one that was looked at, and a copy that nobody else can change.

    facts          what betrays a change
    size, mtime    most changes; a tool may set the time of change back
    inode          a new file in the old one's place, a link that was turned
    ctime          whatever was written or set; nobody can set this time back
    checksum       what the others miss: two writes within one tick of the file system's clock, or
                   writes through a mapping of memory, which some file systems do not time

To read every byte of every model at each start would cost minutes. So the checksum is taken of
files up to `MAX_READ_BYTES`, in which the code lies, and of larger ones only if they were changed
less than `FRESH_NS` before they were looked at: later changes have another ctime.

The checksum is a CRC-32, since a server answers requests meanwhile: a cryptographic digest takes
five times as long. Of four billion changes that no other fact betrays it misses one, and whoever
could aim at that could give the model other files as well.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from batcher.errors import ModelLoadError

MAX_READ_BYTES = 16 << 20
"""Bytes of a file that are always read whole: 3 to 15 ms of work."""

PIECE_BYTES = 1 << 18
"""Bytes that are read at once: a tenth of a millisecond, and less than a core's cache holds."""

FRESH_NS = 3_000_000_000
"""Nanoseconds after which a change of a file has another time than the change before: the coarsest
clock of a usual file system (FAT) ticks every 2 s.
"""


class FileFacts(NamedTuple):
    """What is known of a file without trusting any single fact."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    checksum: int | None


def facts_of(path: Path, known: FileFacts | None = None) -> FileFacts:
    """Return the facts of the file at `path` now.

    `known` are its facts when it was looked at before, so that both looks have a checksum or none.

    Raises OSError: the file cannot be looked at. Any thread.
    """
    status = path.stat()
    age_ns = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    is_read = status.st_size <= MAX_READ_BYTES or age_ns < FRESH_NS
    if known is not None:
        is_read = known.checksum is not None
    times = status.st_mtime_ns, status.st_ctime_ns
    checksum = _checksum(path) if is_read else None
    return FileFacts(str(path), status.st_size, *times, status.st_ino, checksum)


@contextmanager
def unchanged(files: list[Path]) -> Iterator[None]:
    """Check that nobody changes `files` meanwhile: half of a file may be the new one's.

    Raises:
        ModelLoadError: a file was changed; the message names the file.

    Any thread.
    """
    before = [times_of(file) for file in files]
    yield
    for file, times in zip(files, before, strict=True):
        if times_of(file) != times:
            raise ModelLoadError(
                f"{file.name}: expected a file that stays as it is while the model is loaded; it "
                "was changed meanwhile. Load the model again once the file is complete"
            )


@contextmanager
def own_copy(file: Path) -> Iterator[Path]:
    """Yield the path of a copy of `file` in memory, which nobody else can change.

    A library that maps a file into memory would die of a file that gets shorter meanwhile. Without
    such memory (not Linux) the path is that of the file itself. Any thread.
    """
    if not hasattr(os, "memfd_create"):
        yield file
        return
    with file.open("rb") as source, os.fdopen(os.memfd_create(file.name[-200:]), "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def _checksum(path: Path) -> int | None:
    """Return a checksum of the file's bytes; None if it cannot be read. Any thread.

    It leaves two thirds of a core to others: a server may answer requests meanwhile, and on few
    cores a thread that computes without a pause keeps those back that wake for a request.
    """
    checksum, piece = 0, memoryview(bytearray(PIECE_BYTES))
    with suppress(OSError), path.open("rb", buffering=0) as stream:
        began = time.perf_counter()
        while size := stream.readinto(piece):
            checksum = zlib.crc32(piece[:size], checksum)
            if size == PIECE_BYTES:
                time.sleep(2 * (time.perf_counter() - began))
                began = time.perf_counter()
        return checksum
    return None


def times_of(file: Path) -> tuple[int, int, int, int]:
    """Return what changes when a file is written or replaced. Any thread."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

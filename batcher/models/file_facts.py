"""Whether a file is still the one that was looked at, and a copy that nobody else can change.

    facts          what betrays a change
    size, mtime    most changes; a tool may set the time of change back
    inode          a new file in the old one's place, a link that was turned
    ctime          whatever was written or set; nobody can set this time back
    digest         what the others miss: two writes within one tick of the file system's clock, or
                   writes through a mapping of memory, which some file systems do not time

To read every byte of every model at each start would cost minutes. So the digest is taken of files
up to `MAX_DIGEST_BYTES`, in which the code lies, and of larger ones only if they were changed less
than `FRESH_NS` before they were looked at: later changes have another ctime.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from batcher.errors import ModelLoadError

MAX_DIGEST_BYTES = 16 << 20
"""Bytes of a file that are always read whole: 20 ms of work."""

PIECE_BYTES = 1 << 18
"""Bytes that are read and hashed at once: a third of a millisecond."""

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
    digest: str


def facts_of(path: Path, known: FileFacts | None = None) -> FileFacts:
    """Return the facts of the file at `path` now.

    `known` are its facts when it was looked at before, so that both looks have a digest or none.

    Raises OSError: the file cannot be looked at. Any thread.
    """
    status = path.stat()
    age_ns = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    is_small = status.st_size <= MAX_DIGEST_BYTES
    has_digest = bool(known.digest) if known is not None else is_small or age_ns < FRESH_NS
    digest = _digest(path, gently=known is not None) if has_digest else ""
    times = status.st_mtime_ns, status.st_ctime_ns
    return FileFacts(str(path), status.st_size, *times, status.st_ino, digest)


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


def _digest(path: Path, gently: bool) -> str:
    """Return a digest of the file's bytes; nothing if it cannot be read. Any thread.

    With `gently` it leaves two thirds of a core to others: a server answers requests meanwhile, and
    on few cores a thread that computes without a pause keeps those back that wake for a request.
    """
    digest = hashlib.blake2b(digest_size=16)
    with suppress(OSError), path.open("rb", buffering=0) as stream:
        began = time.perf_counter()
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            if gently and len(piece) == PIECE_BYTES:
                time.sleep(2 * (time.perf_counter() - began))
                began = time.perf_counter()
        return digest.hexdigest()
    return ""


def times_of(file: Path) -> tuple[int, int, int, int]:
    """Return what changes when a file is written or replaced. Any thread."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

"""Rows of a file of text for another process, which asks for several portions at a time.

The process that asks describes the file once, and repeats that with each call: what it has opened
for the call before, this process goes on with. The file is opened here by its path once more, and
a path may have got another file since the other process looked: what was opened is compared.
"""

from __future__ import annotations

import os
import pickle
import time
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from batcher.codecs.row_files.opening import reader_of
from batcher.core.portions import Portion, Position, RowReader
from batcher.core.request import nbytes_of
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError

BUFFER_BYTES = 1 << 18
"""Bytes that are read at once of a file: with Python's 8 KiB a call brings few lines."""

MOST_PORTIONS, MOST_BYTES, MOST_S = 8, 2 << 20, 0.01
"""Portions, bytes of inputs, and seconds, after which the answer to a call goes back."""


class FileState(NamedTuple):
    """What tells a file from any other, and from the same file before a change.

    Attributes:
        device: of the file system.
        inode: the file's number there; a file that is renamed to the same path has another one.
        size: bytes.
        time: nanoseconds of the last change.
    """

    device: int
    inode: int
    size: int
    time: int


def state_of(file: BinaryIO) -> FileState:
    """Return the state of an open file, whatever lies at its path by now."""
    found = os.fstat(file.fileno())
    return FileState(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class FarFile(NamedTuple):
    """A file of this machine.

    Attributes:
        path: where the file lies.
        state: of the file when the other process opened it.
        spec: of the model that its rows are for.
        csv_header: `present`, `absent`, or empty where the file shows it.
        max_pixels: most pixels of a picture.
    """

    path: Path
    state: FileState
    spec: ModelSpec
    csv_header: str
    max_pixels: int


def described(file: FarFile) -> bytes:
    """Return what `read_portions` needs of `file`."""
    return pickle.dumps(file)


def get_ready(file: bytes) -> None:
    """Open `file`. Raises ConfigError: it cannot be read, or is another one by now."""
    _reader(file)


def read_portions(file: bytes, position: Position, rows: int) -> list[Portion | None]:
    """Return the next portions of `rows` rows from `position` on, at least one; None is the end.

    Raises ConfigError: the file cannot be read.
    """
    try:
        return _portions(_reader(file), position, rows)
    except OSError as err:
        raise ConfigError(f"the input: {err}") from err


def _portions(reader: RowReader, position: Position, rows: int) -> list[Portion | None]:
    until, nbytes = time.monotonic() + MOST_S, 0
    found: list[Portion | None] = []
    while len(found) < MOST_PORTIONS and nbytes < MOST_BYTES and time.monotonic() < until:
        portion = reader.read(position, rows)
        found.append(portion)
        if portion is None:
            break
        position = portion.after
        nbytes += sum(nbytes_of(group.inputs) for group in portion.groups)
    return found


@lru_cache(maxsize=1)
def _reader(file: bytes) -> RowReader:
    """Return the reader of a file, which is opened for the first call. Raises ConfigError."""
    path, state, spec, csv_header, max_pixels = FarFile(*pickle.loads(file))
    try:
        opened = path.open("rb", BUFFER_BYTES)
    except OSError as err:
        raise ConfigError(f"the input: {err}") from err
    if state_of(opened) != state:
        opened.close()
        raise ConfigError(
            f"the input: expected {path.name} as it was when this job began; it was changed or "
            "replaced since: begin when nobody writes it"
        )
    return reader_of(path.name, opened, spec, csv_header, max_pixels)

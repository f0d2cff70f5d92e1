"""A file that is fetched in parts, several at once, and goes on where it was broken off.

    net.onnx         of the size that the file will have; parts are written to their places
    net.onnx.parts   begins with a line that says of which boot; then a byte for each part, 1 once
                     the part is written

What a killed process has written is still in the system's memory, and so is the byte that says so.
After the machine itself has stopped, neither is certain: the line of another boot counts for
nothing, and the file is fetched anew.

A part is the 1,024th of the file, at least 1 MiB and at most 64 MiB. A process that is killed while
8 parts are on their way so loses less than 1 % of a large file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
MIN_PART_BYTES = MIB
"""Bytes below which a part costs more in waiting for the store than in bytes."""
MAX_PART_BYTES = 64 * MIB
"""Bytes of a part in memory; as many parts as are fetched at once are there."""
PARTS = 1024
"""Parts of a file between these sizes."""


class Part(NamedTuple):
    """A range of a file: its number, its first byte, and the byte behind its last."""

    number: int
    start: int
    end: int


def part_bytes(size: int) -> int:
    """Return the bytes of a part of a file of `size` bytes."""
    return min(max(-(-size // PARTS), MIN_PART_BYTES), MAX_PART_BYTES)


class PartialFile:
    """A file on the disk that comes in parts. Threads that fetch, each with parts of its own."""

    def __init__(self, path: Path, notes: Path, size: int) -> None:
        """Write to `path`, and what is there to `notes`; the file will have `size` bytes."""
        self.size = size
        self._path = path
        self._notes = notes
        self._part_bytes = part_bytes(size)
        self._head = f"{_boot()} {size}\n".encode()

    def open(self) -> list[Part]:
        """Make the file ready for parts, and return those that are missing. Raises OSError."""
        parts = list(self._parts())
        known = b""
        with suppress(FileNotFoundError):
            if self._path.stat().st_size == self.size:
                known = self._notes.read_bytes()
        if not known.startswith(self._head) or len(known) != len(self._head) + len(parts):
            self._begin(len(parts))
            return parts
        there = known[len(self._head) :]
        return [part for part in parts if there[part.number] != 1]

    def _begin(self, count: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        self.forget()
        with self._path.open("wb") as stream:
            stream.truncate(self.size)
        self._notes.write_bytes(self._head + bytes(count))

    def write(self, part: Part, content: bytes) -> None:
        """Put `content` into its place, and note that it is there. Raises OSError."""
        _write_at(self._path, content, part.start)
        _write_at(self._notes, b"\1", len(self._head) + part.number)

    def forget(self) -> None:
        """Have the whole file fetched anew the next time. Raises OSError."""
        self._notes.unlink(missing_ok=True)

    def _parts(self) -> Iterator[Part]:
        for number, start in enumerate(range(0, self.size, self._part_bytes)):
            yield Part(number, start, min(start + self._part_bytes, self.size))


def _write_at(path: Path, content: bytes, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        rest = memoryview(content)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(descriptor)


def _boot() -> str:
    """Return what is another after the machine was started again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: nothing is taken up again by another process
        return f"process-{os.getpid()}"

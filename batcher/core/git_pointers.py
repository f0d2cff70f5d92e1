"""Pointers of Git LFS: texts of three lines that stand where a large file should.

    version https://git-lfs.github.com/spec/v1
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
    size 12345

A clone without Git LFS has them in place of models and weights, and libraries that read them tell
of damaged files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_BEGIN = b"version https://git-lfs.github.com/spec/"

FETCHING = "a text that Git LFS has put in its place: fetch the file itself with `git lfs pull`"
"""What a pointer is, and what to do about it."""


def is_pointer(path: Path) -> bool:
    """Return whether the file at `path` is a pointer; not so if it cannot be read. Any thread."""
    try:
        with path.open("rb") as file:
            return file.read(len(_BEGIN)) == _BEGIN
    except OSError:
        return False


def pointers_among(paths: Iterable[Path]) -> list[str]:
    """Return the names of those files among `paths` that are pointers. Disk thread."""
    return sorted(path.name for path in paths if is_pointer(path))

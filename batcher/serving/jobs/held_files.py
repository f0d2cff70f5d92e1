"""Uploaded files by their ids, and by the keys that they belong to.

What a key has is known without looking at all files, of which there may be ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple


class UploadedFile(NamedTuple):
    """A file that a client has uploaded.

    Attributes:
        id: its name in paths.
        owner: digest of the key that it belongs to; empty without a key.
        filename: what the client calls it.
        nbytes: bytes of it.
        created: when it came, in Unix seconds.
        expires: when it is removed.
    """

    id: str
    owner: str
    filename: str
    nbytes: int
    created: float
    expires: float


class _Own:
    """The files of one key, and their bytes."""

    __slots__ = ("files", "nbytes")

    def __init__(self) -> None:
        self.files: dict[str, UploadedFile] = {}
        self.nbytes = 0


_NONE = _Own()


class HeldFiles:
    """The files of all keys. Reactor thread.

    Attributes:
        nbytes: bytes of all of them.
    """

    def __init__(self) -> None:
        """Hold none."""
        self.nbytes = 0
        self._files: dict[str, UploadedFile] = {}
        self._own: dict[str, _Own] = {}
        self._first_end = inf

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._files)

    def add(self, file: UploadedFile) -> None:
        """Hold `file`."""
        own = self._own.setdefault(file.owner, _Own())
        self._files[file.id] = own.files[file.id] = file
        own.nbytes += file.nbytes
        self.nbytes += file.nbytes
        self._first_end = min(self._first_end, file.expires)

    def remove(self, file: UploadedFile) -> None:
        """Hold `file` no more."""
        own = self._own[file.owner]
        del self._files[file.id], own.files[file.id]
        own.nbytes -= file.nbytes
        self.nbytes -= file.nbytes
        if not own.files:
            del self._own[file.owner]

    def find(self, id: str, owner: str) -> UploadedFile | None:
        """Return the file `id`, if it is one of `owner`."""
        return self._own.get(owner, _NONE).files.get(id)

    def of(self, owner: str) -> Sequence[UploadedFile]:
        """Return the files of `owner`, the oldest first."""
        return tuple(self._own.get(owner, _NONE).files.values())

    def held_by(self, owner: str) -> tuple[int, int]:
        """Return how many files, and how many bytes, `owner` has."""
        own = self._own.get(owner, _NONE)
        return len(own.files), own.nbytes

    def ended(self, now: float) -> Iterable[UploadedFile]:
        """Return the files whose time is over at `now`. They are looked through only then."""
        if now < self._first_end:
            return ()
        found = [file for file in self._files.values() if file.expires <= now]
        self._first_end = min((file.expires for file in self._files.values()), default=inf)
        return found

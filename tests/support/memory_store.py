"""A store in memory, for tests of what copies files out of a store."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import md5
from pathlib import Path

from batcher.serving.repository.stores.store import FileChanged, StoredFile


class MemoryStore:
    """Files by name, with the MD5 as their tag, as S3 has it. Any thread.

    Attributes:
        files: content by name.
        away: whether every call fails, as when the network is gone.
        listings: how many times the store was listed.
        fetched: bytes that were handed out.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        """Hold `files`."""
        self.files = files if files is not None else {}
        self.away = False
        self.listings = 0
        self.fetched = 0

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the files below `prefix`."""
        self._check()
        self.listings += 1
        inside = f"{prefix}/" if prefix else ""
        return [
            StoredFile(name, len(content), _tag(content))
            for name, content in self.files.items()
            if name.startswith(inside)
        ]

    def find(self, name: str) -> StoredFile | None:
        """Return the file `name`; None if there is none."""
        self._check()
        content = self.files.get(name)
        return None if content is None else StoredFile(name, len(content), _tag(content))

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`."""
        self._check()
        content = self.files.get(file.name)
        if content is None or _tag(content) != file.tag:
            raise FileChanged(file.name)
        self.fetched += end - start
        return content[start:end]

    def put(self, name: str, path: Path) -> None:
        """Store the file at `path`."""
        self._check()
        self.files[name] = path.read_bytes()

    def create(self, name: str, content: bytes) -> bool:
        """Store a new file, or return False if there is one."""
        self._check()
        if name in self.files:
            return False
        self.files[name] = content
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Remove files."""
        self._check()
        for name in names:
            self.files.pop(name, None)

    def _check(self) -> None:
        if self.away:
            raise ConnectionError("the store is away")


def _tag(content: bytes) -> str:
    return md5(content, usedforsecurity=False).hexdigest()

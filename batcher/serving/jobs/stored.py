"""Inputs and outputs of jobs in a store: `s3://bucket/folder/file`, `gs://…`, `az://…`.

An input is read by ranges, as a file that is open. An output is written on this machine, as any
output is, and put into the store when it is whole; the store shows it as a whole or not at all.

    local output is whole -> put -> the journal says that it was put -> local output is removed

A job that is killed in between puts the same bytes again.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO, NamedTuple

from batcher.errors import ConfigError
from batcher.serving.repository.stores.address import check_address
from batcher.serving.repository.stores.opening import open_bucket
from batcher.serving.repository.stores.store import StoredFile, WritableStore

READ_BYTES = 8 << 20
"""Bytes of one range: a store answers a request in some 50 ms, whatever its size is up to that."""


class StoredPlace(NamedTuple):
    """A file or a folder in a store.

    Attributes:
        address: as the caller wrote it, without a slash at its end.
        store: the folder that it lies in.
        name: its name there.
    """

    address: str
    store: WritableStore
    name: str

    def file(self) -> StoredFile | None:
        """Return the file; None if there is no such file, but maybe a folder. Raises OSError."""
        return self.store.find(self.name)

    def files(self) -> list[StoredFile]:
        """Return the files of the folder in the order of their names. Raises OSError."""
        return sorted(self.store.list(self.name))


def stored_place(address: str, where: str) -> StoredPlace:
    """Return the place at `address`; nothing is asked of the store.

    Raises ConfigError: there is no such kind of store, or the address names no file in it.
    """
    whole = check_address(address, where)
    parent, _, name = whole.rpartition("/")
    if parent.endswith("/") or whole.startswith("https:"):
        raise ConfigError(f"{where}: expected s3://BUCKET/FILE, gs:// or az://; got {whole}")
    return StoredPlace(whole, open_bucket(parent), name)


class _Ranges(io.RawIOBase):
    """A file of a store as an open file. One thread at a time."""

    def __init__(self, store: WritableStore, file: StoredFile) -> None:
        super().__init__()
        self._store = store
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._file.size)
        if end <= self._at:
            return 0
        content = self._store.fetch(self._file, self._at, end)
        if len(content) != end - self._at:  # no bytes would read as the end of the file
            raise OSError(f"{self._file.name}: expected bytes up to {end}; the store gave fewer")
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def open_stored(store: WritableStore, file: StoredFile) -> BinaryIO:
    """Return `file` as an open file, of which at most READ_BYTES are held."""
    ranges: Any = _Ranges(store, file)
    opened: Any = io.BufferedReader(ranges, READ_BYTES)
    return opened  # type: ignore[no-any-return]  # a BufferedReader is a BinaryIO but by name

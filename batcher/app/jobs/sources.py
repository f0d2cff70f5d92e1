"""Where the rows of a job come from: a file or a folder, on this machine or in a store.

Both kinds say what is there, hand out open files, and tell facts that change whenever the content
may have changed: size and time on this machine, size and tag (ETag) in a store.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from batcher.app.jobs.far_reading import BUFFER_BYTES, FileState, state_of
from batcher.errors import ConfigError, DecodingError
from batcher.serving.jobs.stored import StoredPlace, open_stored, stored_place
from batcher.serving.repository.stores.address import is_store
from batcher.serving.repository.stores.store import StoredFile

MAX_FILE_BYTES = 64 << 20
"""Largest file of a folder, which is one row: as much as a request may have by default."""


class Source(Protocol):
    """A file, or a folder of files.

    Attributes:
        name: of the file, or of the folder.
        is_folder: which of the two it is.
        path: where it lies on this machine; None where it does not.
        state: of the file of this machine that was opened; None before, and elsewhere.
    """

    name: str
    is_folder: bool
    path: Path | None
    state: FileState | None

    def open(self) -> BinaryIO:
        """Return the file, open for reading. Raises OSError."""

    def names(self) -> list[str]:
        """Return the files of the folder in their order, but hidden ones."""

    def read(self, name: str) -> bytes:
        """Return the content of a file of the folder. Any thread. Raises OSError."""

    def facts(self) -> dict[str, Any]:
        """Return what changes whenever the input does: the folder, or the file that is open."""


def source_at(place: str, takes_links: bool = True) -> Source:
    """Return what is at `place`, a path or an address.

    Files of a folder may be links to anywhere if `takes_links`. Raises ConfigError: nothing is
    there, or something that is no file, such as a pipe, which nobody may ever write to.
    """
    if is_store(place):
        return StoredSource(stored_place(place, "the input"))
    path = Path(place).absolute()
    if not (path.is_file() or path.is_dir()):
        raise ConfigError(f"the input: expected a file or a folder; got {place}: there is none")
    return LocalSource(path, takes_links)


class LocalSource:
    """A file or a folder of this machine."""

    def __init__(self, path: Path, takes_links: bool = True) -> None:
        """Read at `path`; links in a folder lead out of it only if `takes_links`."""
        self._takes_links = takes_links
        self.name = path.name
        self.is_folder = path.is_dir()
        self.path: Path | None = path
        self.state: FileState | None = None
        self._path = path

    def open(self) -> BinaryIO:
        """Return the file."""
        file = self._path.open("rb", BUFFER_BYTES)
        self.state = state_of(file)
        return file

    def names(self) -> list[str]:
        """Return the files below the folder."""
        found = []
        for parent, folders, names in os.walk(self._path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(parent).relative_to(self._path)
            found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises DecodingError: it is too large for a row."""
        _check_size(self._file(name).stat().st_size)
        return (self._path / name).read_bytes()

    def _file(self, name: str) -> Path:
        """Return the path of a file of the folder. Raises ConfigError: it is no file of it."""
        path = self._path / name
        if not path.is_file():
            raise ConfigError(f"the input: expected files in the folder; got {name}")
        inside = self._takes_links or not path.is_symlink()
        if not inside and Path(os.path.realpath(self._path)) not in path.resolve().parents:
            raise ConfigError(f"the input: expected files of the folder; got a link: {name}")
        return path

    def facts(self) -> dict[str, Any]:
        """Return sizes and times."""
        if not self.is_folder:
            assert self.state is not None, "the file is open"
            # Not of what lies at the path: that may be another file by now.
            return {"bytes": self.state.size, "time": self.state.time}
        names = self.names()
        each = [fact for name in names for fact in (name, *_size_and_time(self._file(name)))]
        return {"files": len(names), "digest": digest(each)}


class StoredSource:
    """A file or a folder of a store."""

    def __init__(self, place: StoredPlace) -> None:
        """Look at `place`. Raises ConfigError: nothing is there, or the store does not say."""
        try:
            file = place.file()
            files = [] if file is not None else place.files()
        except OSError as err:
            raise ConfigError(f"the input: {err}") from err
        if file is None and not files:
            got = f"{place.address}: there is none"
            raise ConfigError(f"the input: expected a file or a folder; got {got}")
        self.name = place.name
        self.path: Path | None = None
        self.state: FileState | None = None
        self.is_folder = file is None
        self._store = place.store
        self._file = file
        shown = {each.name.removeprefix(f"{place.name}/"): each for each in files}
        self._files: dict[str, StoredFile] = {
            name: each for name, each in shown.items() if not _is_hidden(name)
        }

    def open(self) -> BinaryIO:
        """Return the file, which is read by ranges."""
        assert self._file is not None, "a folder is not opened"
        return open_stored(self._store, self._file)

    def names(self) -> list[str]:
        """Return the files below the folder."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        file = self._files[name]
        _check_size(file.size)
        # There is no range of no bytes.
        return self._store.fetch(file, 0, file.size) if file.size else b""

    def facts(self) -> dict[str, Any]:
        """Return sizes and tags."""
        if self._file is not None:
            return {"bytes": self._file.size, "tag": self._file.tag}
        each = [fact for file in self._files.values() for fact in file]
        return {"files": len(self._files), "digest": digest(each)}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        what = f"expected a file of at most {MAX_FILE_BYTES} bytes; got {size}"
        raise DecodingError(what)


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def digest(facts: Iterable[object]) -> str:
    """Return a text that is another one for other `facts`."""
    return blake2b("\0".join(map(str, facts)).encode(), digest_size=16).hexdigest()

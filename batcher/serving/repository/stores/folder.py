"""A folder of this machine as a store: what people put models into without a bucket.

A server reads such a folder as it is. The commands `batcher models` need a store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from batcher.serving.repository.stores.store import FileChanged, StoredFile


class FolderStore:
    """Files below a folder. Any thread."""

    def __init__(self, folder: Path) -> None:
        """Hold the folder, which may be missing."""
        self._folder = folder

    def list(self, prefix: str) -> list[StoredFile]:
        """Return the files below `prefix`. Raises OSError."""
        return sorted(self._files(self._folder / prefix))

    def _files(self, folder: Path, above: frozenset[str] = frozenset()) -> Iterator[StoredFile]:
        """Yield the files in `folder` and below it, through links as well; `above` are its parents.

        What cannot be read, such as a link that leads nowhere or in a circle, is passed over.
        """
        with suppress(OSError):
            here = os.path.realpath(folder)
            for path in [] if here in above else folder.iterdir():
                if path.is_dir() and path.name != "__pycache__":
                    yield from self._files(path, above | {here})
                elif not path.is_dir():
                    with suppress(OSError):
                        yield self._file(path.relative_to(self._folder).as_posix())

    def _file(self, name: str) -> StoredFile:
        status = (self._folder / name).stat()
        return StoredFile(name, status.st_size, f"{status.st_mtime_ns}-{status.st_ino}")

    def find(self, name: str) -> StoredFile | None:
        """Return the file `name`; None if there is none. Raises OSError."""
        return self._file(name) if (self._folder / name).is_file() else None

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return a range of `file`. Raises OSError."""
        if self._file(file.name) != file:
            raise FileChanged(file.name)
        with (self._folder / file.name).open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start)

    def put(self, name: str, path: Path) -> None:
        """Copy the file at `path`; nobody sees half of it. Raises OSError."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{os.getpid()}.partial")
        shutil.copyfile(path, partial)
        partial.replace(target)

    def create(self, name: str, content: bytes) -> bool:
        """Store a new file, or return False if there is one. Raises OSError."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as stream:
                stream.write(content)
        except FileExistsError:
            return False
        return True

    def delete(self, names: Sequence[str]) -> None:
        """Remove files, and the folders that are empty then.

        Raises OSError: also where a link leads to one of the files, which others may use as well.
        """
        for name in names:
            for folder in _folders_of(self._folder, name):
                if folder.is_symlink():
                    raise OSError(f"{str(folder)!r}: expected a folder; got a link: remove that")
        for name in names:
            (self._folder / name).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in _folders_of(self._folder, name):
                    _remove_if_empty(folder)


def _folders_of(folder: Path, name: str) -> list[Path]:
    """Return the folders below `folder` that the file `name` is in, the inner ones first."""
    return [folder / parent for parent in list(Path(name).parents)[:-1]]


def _remove_if_empty(folder: Path) -> None:
    """Remove `folder`, in which Python may have left bytecode. Raises OSError: more is there."""
    if os.listdir(folder) == ["__pycache__"]:
        shutil.rmtree(folder / "__pycache__")
    folder.rmdir()

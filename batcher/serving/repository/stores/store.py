"""What a store is: files by name, of which the store tells sizes and tags, and hands out ranges.

Everything about clouds stands behind this protocol, so that what copies and checks files is tested
with a store in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from batcher.errors import ConfigError

MAX_LISTED = 100_000
"""Files of one store: a listing of more takes minutes, and is no folder of models."""


class StoredFile(NamedTuple):
    """One file of a store.

    Attributes:
        name: from the root of the store, with `/` between folders.
        size: in bytes.
        tag: changes with the content, as an ETag does; empty where a store has none.
    """

    name: str
    size: int
    tag: str


class Store(Protocol):
    """Files by name. The thread of the stores, and threads that fetch for it."""

    def list(self, prefix: str) -> list[StoredFile]:
        """Return every file in the folder `prefix` and below it; the empty prefix is the root.

        Raises:
            OSError: the store is away, or refuses; the message holds no secret.
            ConfigError: what the store answers is no listing, or has more than MAX_LISTED files.
        """

    def fetch(self, file: StoredFile, start: int, end: int) -> bytes:
        """Return the bytes of `file` from `start` up to, but not including, `end`.

        Raises OSError, as `list` does; FileChanged.
        """


class WritableStore(Store, Protocol):
    """A store that people put models into."""

    def find(self, name: str) -> StoredFile | None:
        """Return the file `name`; None if there is none. Raises OSError, as `list` does."""

    def put(self, name: str, path: Path) -> None:
        """Store the file at `path` under `name`. Raises OSError."""

    def create(self, name: str, content: bytes) -> bool:
        """Store `content` as the file `name` and return True, or False if there is such a file.

        Of several that create one file at the same instant, one alone is told True.

        Raises OSError: also NoCreation, where the store has no such request.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Remove the files `names`; those that are not there are passed over. Raises OSError."""


def too_many(address: str, most: int) -> ConfigError:
    """Return the error of a store, at `address`, of more than `most` files."""
    return ConfigError(
        f"{address}: expected at most {most} files, those in folders below included; there "
        "are more: put models into a folder of their own"
    )


class NoCreation(OSError):
    """The store cannot be asked to store a file only if there is none of that name."""


class FileChanged(OSError):
    """A file of the store is not the one that was listed."""

    def __init__(self, name: str) -> None:
        """Say that the file `name` has changed."""
        super().__init__(f"{name}: the file was changed while it was fetched")

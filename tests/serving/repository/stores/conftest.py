"""A store in memory, a cache on the disk, and a clock that a test turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.serving.repository.stores.cache import StoreCache
from batcher.serving.repository.stores.stores import Place, Stores
from batcher.serving.repository.stores.versions import StoredVersion
from tests.support.memory_store import MemoryStore

ADDRESS = "s3://bucket/models"
PLACE = Place(ADDRESS, "")


class Bench:
    """What a test of stores works with.

    Attributes:
        store: the only store.
        stores: what lists and fetches.
        now: the time.
        pauses: seconds that were waited for.
        told: what was told of the progress.
        between: called at each wait.
    """

    def __init__(self, folder: Path, max_bytes: int = 1 << 30) -> None:
        """Keep a cache in `folder`."""
        self.store = MemoryStore()
        self.folder = folder
        self.max_bytes = max_bytes
        self.now = 1000.0
        self.pauses: list[float] = []
        self.told: list[str] = []
        self.between: Callable[[], None] = lambda: None
        self.stores = self.make()

    def make(self) -> Stores:
        """Return what another process would have."""
        return Stores(
            StoreCache(self.folder, self.max_bytes),
            lambda address: self.store,
            lambda title, text: self.told.append(f"{title}: {text}"),
            now=lambda: self.now,
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.pauses.append(seconds)
        self.now += seconds
        self.between()

    def put(self, name: str, **files: str) -> None:
        """Put files into the folder `name`; `__` stands for a dot."""
        for file, content in files.items():
            self.store.files[f"{name}/{file.replace('__', '.')}"] = content.encode()

    def look(self, patient: bool = True) -> list[str]:
        """List the store, and return the titles of the versions that can be served."""
        self.stores.look([PLACE], patient)
        return [version.title for version in self.versions()]

    def versions(self) -> tuple[StoredVersion, ...]:
        """Return what can be served."""
        return self.stores.known[PLACE].versions

    def fetch(self, title: str) -> Path | None:
        """Fetch a version, and return its folder; None if it was left out."""
        (version,) = [each for each in self.versions() if each.title == title]
        self.stores.fetch(version)
        there = self.stores.cache.has(version) and version in self.versions()
        return version.folder_in(self.stores.cache.folder) if there else None

    def reason(self, name: str, version: str) -> str:
        """Return why a version is left out."""
        listing = self.stores.known[PLACE]
        return {**listing.unread, **listing.waiting}[name, version]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return an empty store and an empty cache."""
    return Bench(tmp_path / "cache")

"""Each kind of store, with the environment that reads it and writes into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.serving.repository.stores.opening import open_bucket, open_store
from batcher.serving.repository.stores.store import Store
from tests.integration.stores.counterparts import KINDS, Counterpart


class Remote:
    """A store that runs, and what a test puts into it.

    Attributes:
        counterpart: the server.
        store: what the server under test would read by.
    """

    def __init__(self, counterpart: Counterpart, folder: Path) -> None:
        """Read by `counterpart`, whose environment is set already."""
        self.counterpart = counterpart
        self.store: Store = open_store(counterpart.address)
        self._folder = folder

    def put(self, name: str, content: bytes) -> None:
        """Store a file."""
        if self.counterpart.upload is not None:
            self.counterpart.upload(name, content)
            return
        path = self._folder / name.replace("/", "-")  # of its own: many threads may upload
        path.write_bytes(content)
        open_bucket(self.counterpart.address).put(name, path)
        path.unlink()


@pytest.fixture(scope="module", params=list(KINDS))
def counterpart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Counterpart]:
    """Run each of the stores in turn."""
    pytest.importorskip("obstore", reason="the extra `stores` is not installed")
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as counterpart:
        yield counterpart


@pytest.fixture
def remote(counterpart: Counterpart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Remote:
    """Return a store, with its environment in this process."""
    for name, value in counterpart.environment.items():
        monkeypatch.setenv(name, value)
    return Remote(counterpart, tmp_path)

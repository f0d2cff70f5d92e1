"""Inputs that lie in a bucket, read through the store that models are fetched by.

The endpoint and the credentials are those of the environment. So is the trust: which host stands
behind `s3://` is the operator's choice, and no client's.
"""

from __future__ import annotations

from batcher.core.copied_bytes import joined_bytes
from batcher.core.error_text import brief
from batcher.errors import InputMissing, OperatorError
from batcher.serving.references.source import Fetch, Fetched, failed
from batcher.serving.repository.stores.store import FileChanged, WritableStore

PART_BYTES = 8 << 20
"""Bytes that are asked for at once: between them a fetch ends that nobody waits for."""


class BucketSource:
    """Reads files of one bucket. A thread of the pool for inputs."""

    def __init__(self, address: str, store: WritableStore) -> None:
        """Read from the `store` at `address`, which errors name."""
        self._address = address
        self._store = store

    def read(self, name: str, tag: str, fetch: Fetch) -> Fetched | None:
        """Return the file `name`, see `Source`."""
        address = f"{self._address}/{name}"
        try:
            try:
                return self._read(name, tag, fetch, address)
            except FileChanged:  # once more: a file that changes all the time is none
                return self._read(name, tag, fetch, address)
        except (OSError, OperatorError) as err:
            # The store's own words hold its endpoint, which no client is told.
            raise failed(address, "the store to answer; it did not", err) from None

    def _read(self, name: str, tag: str, fetch: Fetch, address: str) -> Fetched | None:
        fetch.left()
        file = self._store.find(name)
        if file is None:
            raise InputMissing(f"{brief(address, 200)}: expected a file; there is none")
        if tag and file.tag == tag:
            return None
        fetch.check_size(file.size, address)
        parts = []
        for start in range(0, file.size, PART_BYTES):
            fetch.left()
            parts.append(self._store.fetch(file, start, min(start + PART_BYTES, file.size)))
        return Fetched(joined_bytes(parts), file.tag)

"""Opens the store at an address; the library of a kind is imported when that kind is asked for."""

from __future__ import annotations

from batcher.core.installing import how_to_install
from batcher.errors import ConfigError
from batcher.serving.repository.stores.bucket import Bucket
from batcher.serving.repository.stores.store import Store, WritableStore
from batcher.serving.repository.stores.web import WebStore


def open_store(address: str) -> Store:
    """Return the store at `address`; nothing is asked of it yet.

    Raises ConfigError: the extra `stores` is missing, or the environment is wrong.
    """
    if address.startswith("https://"):
        return WebStore(address)
    return open_bucket(address)


def open_bucket(address: str) -> WritableStore:
    """Return the bucket at `address`. Raises as `open_store` does."""
    try:
        return Bucket(address)
    except ImportError as err:
        raise ConfigError(
            f"{address}: expected the extra stores; got none: {err}. It comes with "
            f"{how_to_install('stores')}"
        ) from err

"""The thread that asks stores and fetches from them, since that may take hours.

It is another thread than the one that reads the disk: while a large version comes, clients list
models and load others. Where the settings name no store, there is no thread, and nothing is asked.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, DeadlineExceeded
from batcher.serving.repository.fetching import Choose, Find, fetch, make_stores, places_of
from batcher.serving.repository.folders import find_models
from batcher.serving.repository.listing import Known, Listing, ModelFolder
from batcher.serving.repository.reading import find_sound, served
from batcher.serving.repository.source import VersionSource
from batcher.serving.server import ModelServer

STORE_WAIT_S = 86_400.0
"""Seconds that a fetch may take and wait: a day for the largest models on the slowest lines."""


class RemoteModels:
    """Fetches versions from stores beside the loop. Reactor thread.

    Attributes:
        sources: what serves now, by name and version; its files stay in the cache.
    """

    def __init__(
        self,
        server: ModelServer,
        settings: ServerSettings,
        base: Path,
        sources: dict[tuple[str, str], VersionSource],
    ) -> None:
        """Fetch for `server`; nothing is asked yet. Relative paths start from the folder `base`."""
        self.sources = sources
        self._server = server
        self._base = base

        def tell(title: str, text: str) -> None:
            server.call_from_thread(self._told, title, text)

        self._stores = make_stores(settings, base, tell, lambda: server.draining)

    def _told(self, title: str, text: str) -> None:
        """Tell in words how far the version `title` is."""
        lifecycle = self._server.lifecycle
        if lifecycle.looking:
            lifecycle.fetched[title] = text
        if not lifecycle.draining:
            lifecycle.progress(title, text)

    def known(self) -> Known:
        """Return what is known of the stores. Any thread."""
        return self._stores.known

    def fetch(
        self,
        settings: ServerSettings,
        choose: Choose,
        patient: bool = True,
        find: Find = find_models,
    ) -> Deferred[None]:
        """List the stores of `settings`, and have on the disk what `choose` chooses.

        Versions that are seen for the first time are waited for if `patient`. What there is to
        choose from says `find`. Fails with ConfigError, also where `choose` or `find` raises it,
        and with Draining if the server stops.
        """
        return maybeDeferred(self._fetch, settings, choose, patient, find)

    def fetch_model(self, settings: ServerSettings, name: str) -> Deferred[None]:
        """Have on the disk what serves of the model `name`; fails as `fetch` does."""

        def choose(listing: Listing) -> list[ModelFolder]:
            return served([each for each in listing.folders if each.name == name], settings)

        return self.fetch(settings, choose, find=find_sound)

    def _fetch(
        self, settings: ServerSettings, choose: Choose, patient: bool, find: Find
    ) -> Deferred[None]:
        if not places_of(settings) and not self._stores.known:
            return succeed(None)
        stored = [source.folder.stored for source in self.sources.values()]
        in_use = [version for version in stored if version is not None]
        work = partial(fetch, self._stores, settings, self._base, choose, in_use, patient, find)
        server = self._server
        fetching = server.pools.stores.run(0, server.seconds() + STORE_WAIT_S, work)
        return fetching.addErrback(_explain)


def _explain(failure: Failure) -> NoReturn:
    failure.trap(DeadlineExceeded, OSError)
    if failure.check(OSError):
        raise ConfigError(f"store_cache: {failure.value}") from failure.value
    raise ConfigError(
        f"model_repository: expected the stores to answer within {STORE_WAIT_S:.0f} s; they did not"
    ) from failure.value

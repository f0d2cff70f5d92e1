"""Brings versions from stores onto the disk, before the disk is read for them.

    list every store -> choose, as the settings say -> fetch what is chosen and missing --+
                        ^                                                                 |
                        +----- a version that cannot be fetched is left out <-------------+

What is chosen is what the reading of the disk chooses afterwards: the same function says so both
times. Where the newest version cannot be fetched, the one before is chosen, as in a folder whose
newest version cannot be read. Without stores in the settings nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.repository.folders import find_models
from batcher.serving.repository.listing import Known, Listing, ModelFolder
from batcher.serving.repository.reading import served
from batcher.serving.repository.stores.address import check_address, is_store
from batcher.serving.repository.stores.cache import StoreCache
from batcher.serving.repository.stores.opening import open_store
from batcher.serving.repository.stores.stores import Place, Stores
from batcher.serving.repository.stores.versions import StoredVersion

Choose = Callable[[Listing], Iterable[ModelFolder]]
"""Returns which of the versions that are there are to be on the disk. Raises ConfigError."""

Find = Callable[[ServerSettings, Path, Known], Listing]
"""Returns what there is, as `find_models` or `find_sound`. Raises ConfigError."""


def places_of(settings: ServerSettings) -> list[Place]:
    """Return the stores that `settings` name. Raises ConfigError: an address is wrong."""
    places = []
    for place in filter(is_store, settings.repositories):
        where = f"{settings.origin('model_repository')}: model_repository"
        places.append(Place(check_address(place, where), ""))
    for name, own in settings.models.items():
        if own.path is not None and is_store(own.path):
            where = f"{settings.origin('models', name, 'path')}: models.{name}.path"
            places.append(Place(check_address(own.path, where), name))
    return places


def make_stores(
    settings: ServerSettings,
    base: Path,
    tell: Callable[[str, str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> Stores:
    """Return what fetches for `settings`; nothing is asked or made yet. Any thread."""
    folder = base / settings.store_cache if settings.store_cache is not None else None
    cache = StoreCache(folder, settings.store_cache_bytes)
    return Stores(cache, open_store, tell, stopped)


def fetch(
    stores: Stores,
    settings: ServerSettings,
    base: Path,
    choose: Choose,
    in_use: Sequence[StoredVersion] = (),
    patient: bool = True,
    find: Find = find_models,
) -> None:
    """Have on the disk what `choose` chooses. The thread of the stores, or of a command.

    Versions `in_use` are held, also if a fetch for others let go of them. With `patient`, versions
    are waited for that are seen for the first time. What there is to choose from says `find`.

    Raises:
        ConfigError: what `find` and `choose` raise; or an address is wrong.
    """
    places = places_of(settings)
    if not places and not stores.known:
        return
    stores.cache.max_bytes = settings.store_cache_bytes
    stores.look(places, patient)
    kept = {version.digest for version in in_use if stores.cache.hold(version)}
    chosen = fetch_chosen(stores, choose, lambda: find(settings, base, stores.known))
    stores.cache.hold_only(chosen | kept)


def fetch_chosen(stores: Stores, choose: Choose, find: Callable[[], Listing]) -> frozenset[str]:
    """Fetch what `choose` chooses of what `find` finds, and return its digests."""
    while True:
        chosen = [folder.stored for folder in choose(find()) if folder.stored is not None]
        missing = [version for version in chosen if not stores.cache.hold(version)]
        if not missing:
            return frozenset(version.digest for version in chosen)
        for version in missing:
            stores.fetch(version)


def find_and_fetch(settings: ServerSettings, base: Path) -> Listing:
    """Return what `find_models` finds; of stores what serves, which is fetched: for commands.

    Raises ConfigError.
    """
    stores = make_stores(settings, base, lambda title, text: None)
    try:
        fetch(stores, settings, base, lambda listing: served(listing.folders, settings))
    except OSError as err:
        raise ConfigError(f"store_cache: {err}") from err
    listing = find_models(settings, base, stores.known)
    there = [
        folder
        for folder in listing.folders
        if folder.stored is None or stores.cache.has(folder.stored)
    ]
    return listing._replace(folders=there)


def newest_version(name: str, folders: Sequence[ModelFolder]) -> ModelFolder:
    """Return the newest version of the model `name`. Raises ConfigError: there is none."""
    versions = [folder for folder in folders if folder.name == name]
    if not versions:
        known = ", ".join(sorted({folder.name for folder in folders})) or "none"
        raise ConfigError(f"expected a model of the configuration ({known}), or a path; got {name}")
    return max(versions, key=lambda folder: int(folder.version))

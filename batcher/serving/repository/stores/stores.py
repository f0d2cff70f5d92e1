"""All stores that the settings name: what they list, and what of it is on the disk.

A version is taken for whole, and may be fetched, once its listing has been the same for `STEADY_S`,
or when it was the same at an earlier start. Files that are put into a store one after the other
give another listing with each of them.

    the store    what is known of it
    answers      its listing, without versions that are not steady yet or were refused
    is away      its last listing, with the versions that are whole in the cache
    is away, and was never listed      nothing: whoever asks for its models reads why

A store that answers something that is no listing, such as the page of a proxy, is away too.

While a version that serves is put into the store anew, or where its new content is refused, the
content from before serves on; a server that starts meanwhile begins with it, from the cache.

A version that was refused is asked for again when its listing has changed, when somebody asks for
models, as at a reload, or later: after `AGAIN_S` where its content was refused, and after `RETRY_S`
where store or disk failed. A download that is refused at each poll would never end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from twisted.logger import Logger

from batcher.errors import ConfigError
from batcher.serving.repository.stores.cache import StoreCache
from batcher.serving.repository.stores.download import Download, Incomplete
from batcher.serving.repository.stores.one_file import OneFile, file_address
from batcher.serving.repository.stores.store import Store, StoredFile
from batcher.serving.repository.stores.versions import (
    Key,
    StoredVersion,
    misnamed_in,
    versions_in,
)

_log = Logger()

STEADY_S = 2.0
"""Seconds for which the listing of a version stays the same before the version is fetched."""

AGAIN_S = 600.0
"""Seconds after which a version is asked for again whose content was refused."""

RETRY_S = 60.0
"""Seconds after which a version is asked for again that could not be fetched, or kept."""

LOCK_PAUSE_S = 0.2
"""Seconds between looks whether another process has fetched a version."""


class Place(NamedTuple):
    """A store that the settings name.

    Attributes:
        address: of the store.
        model: name of the model whose folder it is; empty for a repository of models.
    """

    address: str
    model: str


class StoreListing(NamedTuple):
    """What is known of a store.

    Attributes:
        cache: the folder that versions are fetched into.
        versions: those that can be served, fetched or not.
        waiting: what others wait for, by name and version: their upload has not ended, or their
            folder has a name that is no number.
        unread: why others cannot be served.
        away: why nothing is known of the store; empty if something is.
    """

    cache: Path
    versions: tuple[StoredVersion, ...] = ()
    waiting: Mapping[Key, str] = MappingProxyType({})
    unread: Mapping[Key, str] = MappingProxyType({})
    away: str = ""


class _Listed(NamedTuple):
    """The last listing of a store, and what `versions_in` and `misnamed_in` say of it."""

    files: list[StoredFile]
    versions: list[StoredVersion]
    faults: dict[Key, str]
    misnamed: dict[Key, str]


class Stores:
    """Lists stores and fetches versions. The thread of the stores, or of a command.

    Attributes:
        known: what is known of each store; replaced as a whole, so that any thread may read it.
    """

    def __init__(
        self,
        cache: StoreCache,
        open_store: Callable[[str], Store],
        tell: Callable[[str, str], None],
        stopped: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Fetch into `cache` until `stopped` is true; `tell` a title how far its version is."""
        self.known: Mapping[Place, StoreListing] = {}
        self.cache = cache
        self._open_store = open_store
        self._tell = tell
        self._stopped = stopped
        self._now = now
        self._pause = pause
        self._stores: dict[str, Store] = {}
        self._seen: dict[tuple[str, Key], tuple[str, float]] = {}
        self._listed: dict[Place, _Listed] = {}
        self._whole: dict[tuple[str, Key], StoredVersion] = {}
        self._refused: dict[str, tuple[str, float]] = {}
        self._away: set[str] = set()
        self._not_kept: set[str] = set()
        self._new: set[Place] = set()

    def look(self, places: Sequence[Place], patient: bool) -> None:
        """List every store once; with `patient`, again after STEADY_S where versions are new.

        Somebody who is patient also asks for what was refused before: it may have been mended.

        Raises ConfigError: there is no such store, or what it needs is not installed.
        """
        self._forget_all_but(places)
        if patient:
            self._refused.clear()
        self.known = {place: self._list(place) for place in places}
        new, self._new = self._new, set()
        if patient and new:
            self._pause(STEADY_S)
            self.known = {**self.known, **{place: self._list(place) for place in new}}

    def _list(self, place: Place) -> StoreListing:
        address = place.address
        if address not in self._stores:
            # At once: a store that is away says nothing for some seconds.
            _log.info("listing {address}", address=address)
        store = self._store(address)
        try:
            files = store.list("")
        except (OSError, ConfigError) as err:
            return self._kept(place, str(err))
        if address in self._away:
            self._away.discard(address)
            _log.info("the store {address} answers again", address=address)
        before = self._listed.get(place)
        listing = self._judged(place, files)
        if self._listed[place] is not before or address in self._not_kept:
            self._keep(address, files)
        return listing

    def _keep(self, address: str, files: list[StoredFile]) -> None:
        """Keep a listing for when the store is away. A full disk keeps no model from serving."""
        try:
            self.cache.keep_listing(address, files)
        except OSError as err:
            if address not in self._not_kept:
                _log.warn(
                    "store_cache: the listing of {address} cannot be kept, and while the store is "
                    "away no server can start: {why}",
                    address=address,
                    why=str(err),
                )
            self._not_kept.add(address)
        else:
            self._not_kept.discard(address)

    def _judged(self, place: Place, files: list[StoredFile]) -> StoreListing:
        """Return the versions among `files` that can be served, and why others cannot."""
        listed = self._work_out(place, files)
        steady, known = self._steady(place), []
        waiting, unread = dict(listed.misnamed), dict(listed.faults)
        for version in listed.versions:
            reason = self._reason_against(version, steady)
            if reason == _NOT_STEADY:
                self._new.add(place)
            earlier = self._earlier(version)
            if not reason:
                known.append(version)
            elif earlier is not None:
                known.append(earlier)
            elif reason == _NOT_STEADY:
                waiting[version.key] = reason
            else:
                unread[version.key] = reason
        return StoreListing(self.cache.folder, tuple(known), waiting, unread)

    def _work_out(self, place: Place, files: list[StoredFile]) -> _Listed:
        """Return what there is in `files`, worked out anew only where the listing is another one.

        Of 100,000 files that takes seconds, and each look would take them.
        """
        last = self._listed.get(place)
        if last is None or last.files != files:
            found = versions_in(place.address, files, place.model)
            last = _Listed(files, *found, misnamed_in(files, place.model))
            self._listed[place] = last
        return last

    def _steady(self, place: Place) -> set[str]:
        """Return the digests of versions that were in the store at an earlier start."""
        if any(store == place.address for store, _ in self._seen):
            return set()
        kept = self.cache.kept_listing(place.address, STEADY_S) or []
        return {version.digest for version in versions_in(place.address, kept, place.model)[0]}

    def _reason_against(self, version: StoredVersion, steady: set[str]) -> str:
        """Return why a version is not to be fetched or served now; empty if it is."""
        key = version.store, version.key
        digest, since = self._seen.get(key, ("", 0.0))
        if digest != version.digest:
            since = self._now() - (STEADY_S if version.digest in steady else 0.0)
            self._seen[key] = version.digest, since
        if self.cache.has(version):
            self._whole[key] = version
            return ""
        if self._now() - since < STEADY_S:
            return _NOT_STEADY
        reason, again = self._refused.get(version.digest, ("", 0.0))
        return reason if self._now() < again else ""

    def _kept(self, place: Place, why: str) -> StoreListing:
        """Return what is known of a store that is away; `why` says so."""
        address = place.address
        kept = self.cache.kept_listing(address)
        if kept is None:
            away = f"expected {address} to answer with its files; {why}"
            return StoreListing(self.cache.folder, away=away)
        if address not in self._away:
            self._away.add(address)
            _log.warn(
                "the store {address} is away: what the cache has is served ({why})",
                address=address,
                why=why,
            )
        versions, unread = versions_in(address, kept, place.model)
        whole = {version.key: version for version in versions if self.cache.has(version)}
        # Whoever was putting a version anew when the store went away: the one before serves on.
        earlier = [each for each in map(self._earlier, versions) if each is not None]
        whole = {**{version.key: version for version in earlier}, **whole}
        return StoreListing(self.cache.folder, tuple(whole.values()), {}, unread)

    def _earlier(self, version: StoredVersion) -> StoredVersion | None:
        """Return the content that was fetched last under the number of `version`, if it is here."""
        earlier = self._whole.get((version.store, version.key))
        return earlier if earlier is not None and self.cache.has(earlier) else None

    def fetch(self, version: StoredVersion) -> None:
        """Have the version in the cache, and keep it there; if that fails, leave it out."""
        download = Download(
            self._store(version.store),
            version,
            lambda text: self._tell(version.title, text),
            self._stopped,
            self._pause,
        )
        try:
            self.cache.fill(version, download.run, self._waiting_for(version.title))
            self._whole[version.store, version.key] = version
        except Incomplete as err:
            self._leave_out(version, str(err), waits=True)
        except (ConfigError, OSError) as err:
            reason = f"it could not be fetched from {version.store}: {err}"
            pause = AGAIN_S if isinstance(err, ConfigError) else RETRY_S
            self._refused[version.digest] = reason, self._now() + pause
            _log.error("model {title} is left out: {why}", title=version.title, why=reason)
            self._leave_out(version, reason)

    def _waiting_for(self, title: str) -> Callable[[], None]:
        """Return what waits a little while another process fetches the version `title`."""
        waits = count()

        def wait() -> None:
            if self._stopped():
                raise OSError("the server is being stopped")
            if next(waits) == 0:
                self._tell(title, "another server is fetching it")
            self._pause(LOCK_PAUSE_S)

        return wait

    def _leave_out(self, version: StoredVersion, reason: str, waits: bool = False) -> None:
        """Have what was there before in place of `version`, or else nothing, for a reason."""
        earlier = self._earlier(version)
        known = dict(self.known)
        for place, listing in known.items():
            if version not in listing.versions:
                continue
            instead = [earlier if each == version else each for each in listing.versions]
            listing = listing._replace(versions=tuple(each for each in instead if each is not None))
            if earlier is None and waits:
                listing = listing._replace(waiting={**listing.waiting, version.key: reason})
            elif earlier is None:
                listing = listing._replace(unread={**listing.unread, version.key: reason})
            known[place] = listing
        self.known = known

    def _store(self, address: str) -> Store:
        if address not in self._stores:
            one = file_address(address)
            store = self._open_store(one.folder if one is not None else address)
            self._stores[address] = OneFile(store, one.file) if one is not None else store
            for version in self.cache.whole_of(address):  # what an earlier server has fetched
                self._whole[address, version.key] = version
        return self._stores[address]

    def _forget_all_but(self, places: Sequence[Place]) -> None:
        """Forget what is known of stores that the settings do not name any more."""
        addresses = {place.address for place in places}
        self._stores = {key: store for key, store in self._stores.items() if key in addresses}
        self._listed = {place: each for place, each in self._listed.items() if place in places}
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in addresses}
        self._whole = {key: each for key, each in self._whole.items() if key[0] in addresses}
        now = self._now()
        self._refused = {key: each for key, each in self._refused.items() if each[1] > now}


_NOT_STEADY = f"its listing has not been the same for {STEADY_S:g} s: the upload may not have ended"

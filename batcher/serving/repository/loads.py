"""Loads of versions: what is read from disk goes into the server, and what is loaded is known.

A load first looks at the state of the version:

| the version | what a load does |
|---|---|
| is unknown, has failed or was unloaded | adds it |
| loads, or is being unloaded | waits for that, and looks again |
| serves, and nothing has changed | nothing |
| serves, and something has changed | replaces it |
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.error_text import message
from batcher.errors import Draining, ModelNotReady
from batcher.serving.model_version import GONE, ModelState, ModelVersion, not_ready_error
from batcher.serving.repository.disk import ModelDisk
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.overrides import check_batch_fits
from batcher.serving.repository.reading import FoundVersion, at_load
from batcher.serving.repository.source import VersionSource
from batcher.serving.repository.stores.versions import Key
from batcher.serving.server import ModelServer

_log = Logger()


class Loads:
    """Loads versions into a server. Reactor thread.

    Attributes:
        settings: the settings in force.
        sources: what each version was loaded from last, by name and version.
        instances: how many instances of all models share the cores.
    """

    def __init__(
        self,
        server: ModelServer,
        disk: ModelDisk,
        settings: ServerSettings,
        sources: dict[Key, VersionSource],
    ) -> None:
        """Load into `server` what `disk` reads, and note in `sources` what that was."""
        self.settings = settings
        self.sources = sources
        self.instances = 1
        self._server = server
        self._disk = disk

    def add(self, found: FoundVersion, required: bool) -> Deferred[None]:
        """Load a version that is not here; fires and fails as `ModelServer.add` does."""
        self.sources[found.source.key] = found.source
        return self._server.add(*found.or_failure(self.instances), required)

    def start(self, found: FoundVersion) -> Deferred[None]:
        """Load a version at start; fires and fails as `ModelServer.add` does.

        A version on trial is not required: that it cannot be loaded goes to the log alone.
        """
        name, version = found.source.key
        if version not in self.settings.for_model(name).on_trial:
            return self.add(found, required=True)
        trial = self.add(found, required=False)
        return trial.addErrback(partial(_log_failed, f"{name}/{version}"))

    def versions_of(self, name: str) -> list[ModelVersion]:
        """Return every version of the model `name`."""
        return [version for version in self._server if version.spec.name == name]

    def load(
        self, folders: list[ModelFolder], name: str, overrides: dict[str, Any]
    ) -> Deferred[None]:
        """Load the versions of the model `name` in `folders`, and unload its other versions.

        Fires when all are ready. Fails with ModelNotReady if one is not; with InvalidInput, and
        then nothing has changed, if the `overrides` make batches too large.
        """
        known = {
            version.key: self.sources[version.key]
            for version in self.versions_of(name)
            if version.accepts and version.key in self.sources
        }
        settings = self.settings

        def read() -> list[FoundVersion]:
            return [
                at_load(folder, settings, overrides, known.get((name, folder.version)))
                for folder in folders
            ]

        return self._disk.read(read).addCallback(self._load_found, name, overrides)

    def _load_found(
        self, versions: list[FoundVersion], name: str, overrides: dict[str, Any]
    ) -> Deferred[None]:
        for found in versions:
            if found.definition is not None:
                check_batch_fits(overrides, found.source.settings, found.definition.spec)
        self.instances = self._instances_with(versions)
        there = {found.source.key for found in versions}
        gone = [version for version in self.versions_of(name) if version.key not in there]
        attempts = [*map(self._server.unload, gone), *map(self._load_version, versions)]
        return DeferredList(attempts, consumeErrors=True).addCallback(_check_all_ready)

    def _instances_with(self, coming: list[FoundVersion]) -> int:
        """Return how many instances share the cores once versions that are `coming` are loaded."""
        there = {version.key for version in self._server if version.state not in GONE}
        sources = {key: source for key, source in self.sources.items() if key in there}
        sources.update((found.source.key, found.source) for found in coming)
        return sum(source.instances for source in sources.values())

    def _load_version(self, found: FoundVersion) -> Deferred[None]:
        """Serve one version; fires when it is ready."""
        key = found.source.key
        version = next((version for version in self._server if version.key == key), None)
        if self._server.draining:
            raise Draining("the server is being stopped and loads no more models")
        if version is None or version.state in (ModelState.FAILED, ModelState.UNLOADED):
            # A version that cannot be loaded keeps the reason in its state.
            self.add(found, required=False).addErrback(partial(_log_failed, "/".join(key)))
            version = self._server.find(*key)
            return version.settled().addCallback(_check_ready, version)
        if not version.is_loaded:
            return version.settled().addCallback(lambda _: self._load_again(found.source))
        if self.sources.get(key) == found.source and version.accepts:
            return succeed(None)
        if not found.is_read:  # it served as it is when the disk was looked at
            return self._load_again(found.source)
        return self._replace(found)

    def _load_again(self, source: VersionSource) -> Deferred[None]:
        """Read the version anew, which has changed its state meanwhile, and serve it."""
        reading = partial(at_load, source.folder, self.settings, source.overrides, None)
        return self._disk.read(reading).addCallback(self._load_version)

    def _replace(self, found: FoundVersion) -> Deferred[None]:
        def replaced(_: None) -> None:
            self.sources[found.source.key] = found.source

        def refused(failure: Failure) -> None:
            name = "/".join(found.source.key)
            _log_failed(name, failure)
            public = f"model {name} could not be loaded anew; what was loaded before goes on"
            raise ModelNotReady(failure.getErrorMessage(), public=public)

        return self._server.replace(*found.or_failure(self.instances)).addCallbacks(
            replaced, refused
        )


def _log_failed(name: str, failure: Failure) -> None:
    reason = message(failure.value)
    _log.error("model {name} could not be loaded: {reason}", name=name, reason=reason)


def _check_ready(_: None, version: ModelVersion) -> None:
    if version.state is not ModelState.READY:
        raise not_ready_error(version)


def _check_all_ready(results: list[tuple[bool, Any]]) -> None:
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()

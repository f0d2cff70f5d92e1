"""The models on disk, and which of them serve.

All models of the repository serve from the start, or those that the settings name. Clients load and
unload models where the settings let them. A version is known by its files: a version that is loaded
again is left alone if nothing in its folder has changed, else the new one takes the old one's place
without a pause. Files are looked at when somebody asks; nothing polls them.

Clients change one model at a time. A reload of the settings changes any number of models, all or
none: `rollout` works the change out, within `alone`, and `commit` makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, Draining, ModelNotReady, Unavailable, UnknownModel
from batcher.serving.model_version import GONE, ModelState, ModelVersion
from batcher.serving.repository.folders import ModelFolder, find_models
from batcher.serving.repository.rollout import Rollout
from batcher.serving.repository.source import VersionSource, source_of
from batcher.serving.repository.turns import ModelTurns
from batcher.serving.server import ModelServer

Result = TypeVar("Result")

NOT_LOADED = "not loaded"


class ListedVersion(NamedTuple):
    """A version of a model, in the server or only on disk.

    Attributes:
        name: of the model.
        version: a decimal number.
        state: None where it is on disk alone.
        detail: what it is doing or why it does not serve, in words.
    """

    name: str
    version: str
    state: ModelState | None
    detail: str


class ModelRepository:
    """Loads models from disk into a server. Reactor thread."""

    def __init__(self, server: ModelServer, settings: ServerSettings, base: Path) -> None:
        """Find what `settings` name, relative to the folder `base`; nothing is read yet."""
        self.controlled = settings.model_control == "explicit"
        self._server = server
        self._settings = settings
        self._base = base
        self._sources: dict[tuple[str, str], VersionSource] = {}
        self._turns = ModelTurns(server.clock)
        self._models = 1  # models that share the cores

    def start(self) -> list[Deferred[None]]:
        """Begin to load the versions that serve from the start.

        Each Deferred fails with ModelLoadError if it cannot be.

        Raises:
            ConfigError: a folder or a model that the settings name is not there.
        """
        folders = _at_start(self._settings, find_models(self._settings, self._base))
        self._models = len(folders)
        return [
            self._add(source_of(folder, self._settings, {}), required=True) for folder in folders
        ]

    def rollout(self, settings: ServerSettings) -> Rollout:
        """Work out what other `settings`, and what has changed on disk, mean for the models.

        Nothing happens yet.
        """
        try:
            folders = find_models(settings, self._base)
            wanted = self._wanted(settings, folders)
            rows = [source_of(folder, settings, self._overrides(folder)) for folder in wanted]
        except ConfigError as err:
            refused = Rollout(self._server, [], [], 0)
            refused.reasons.extend(str(err).splitlines())
            return refused
        coming = [
            row for row in rows if row != self._sources.get(row.key) or not self._is_up(row.key)
        ]
        staying = {
            (folder.name, folder.version)
            for folder in (folders if settings.model_control == "explicit" else wanted)
        }
        going = [
            version for version in self._server if version.key in self._sources.keys() - staying
        ]
        return Rollout(self._server, coming, going, len(wanted))

    def commit(self, rollout: Rollout, settings: ServerSettings) -> None:
        """Make the change `rollout`, all of which is loaded, and go by `settings` from now on."""
        self.controlled = settings.model_control == "explicit"
        self._settings = settings
        self._models = rollout.models
        self._sources.update((source.key, source) for source in rollout.coming)
        for version in rollout.going:
            del self._sources[version.key]
        rollout.commit()

    def alone(self, change: Callable[[], Deferred[Result]]) -> Deferred[Result]:
        """Make a change to any models when every change that clients have begun is made.

        Changes that clients ask for meanwhile wait.
        """
        names = {version.spec.name for version in self._server}
        with suppress(ModelNotReady):
            names |= {folder.name for folder in self._on_disk()}
        return self._turns.alone(names, change)

    def load(self, name: str, overrides: dict[str, Any]) -> Deferred[None]:
        """Serve every version of the model `name` as it is on disk now; fires when all are ready.

        Args:
            name: the model's.
            overrides: settings of the model, by name, that a client wants otherwise.

        Raises:
            Unavailable: clients may not load models.
            UnknownModel: there is none of that name.

        The Deferred fails with ModelNotReady if a version cannot be loaded.
        """
        self.check_controlled()
        self._check_known(name)
        return self._turns.one(name, partial(self._load_all, name, overrides))

    def unload(self, name: str) -> Deferred[None]:
        """Take every version of the model `name` out of service.

        Fires when the requests that they had taken are answered.

        Raises:
            Unavailable: clients may not unload models.
            UnknownModel: there is none of that name.
        """
        self.check_controlled()
        if not any(version.spec.name == name for version in self._server):
            self._check_known(name)
        return self._turns.one(name, partial(self._unload_all, name))

    def versions(self) -> Iterator[ListedVersion]:
        """Yield every version that the server knows.

        Where clients may load models, also the versions that are only on disk.
        """
        known = {version.key: version for version in self._server}
        for key, version in known.items():
            yield ListedVersion(*key, version.state, version.detail)
        for folder in self._on_disk() if self.controlled else ():
            if (folder.name, folder.version) not in known:
                yield ListedVersion(folder.name, folder.version, None, NOT_LOADED)

    def check_controlled(self) -> None:
        """Check that clients may load and unload models; raises Unavailable. Reactor thread."""
        if not self.controlled:
            raise Unavailable(
                "models are loaded and unloaded by clients under `model_control: explicit` alone"
            )

    def _check_known(self, name: str) -> None:
        if not any(folder.name == name for folder in self._on_disk()):
            raise UnknownModel(f"model: expected one in the repository; got {name!r:.200}")

    def _load_all(self, name: str, overrides: dict[str, Any]) -> Deferred[None]:
        folders = [folder for folder in self._on_disk() if folder.name == name]
        there = {folder.version for folder in folders}
        gone = [version for version in self._of(name) if version.spec.version not in there]
        attempts = [
            *map(self._server.unload, gone),
            *(self._load(folder, overrides) for folder in folders),
        ]
        return DeferredList(attempts, consumeErrors=True).addCallback(_all_ready)

    def _unload_all(self, name: str) -> Deferred[None]:
        return DeferredList(list(map(self._server.unload, self._of(name)))).addCallback(
            lambda _: None
        )

    def _of(self, name: str) -> list[ModelVersion]:
        return [version for version in self._server if version.spec.name == name]

    def _wanted(self, settings: ServerSettings, folders: list[ModelFolder]) -> list[ModelFolder]:
        """Return the versions that are to serve.

        Where clients load and unload models, a model that a client has loaded or unloaded is left
        as it is.
        """
        at_start = _at_start(settings, folders)
        if settings.model_control == "none":
            return at_start
        seen = {version.spec.name for version in self._server}
        up = {version.spec.name for version in self._server if version.state not in GONE}
        return [
            folder
            for folder in folders
            if folder.name in up or (folder.name not in seen and folder in at_start)
        ]

    def _is_up(self, key: tuple[str, str]) -> bool:
        return any(version.key == key and version.state not in GONE for version in self._server)

    def _overrides(self, folder: ModelFolder) -> dict[str, Any]:
        """Return what the client overrode that had this version loaded."""
        known = self._sources.get((folder.name, folder.version))
        return known.overrides if known is not None else {}

    def _on_disk(self) -> list[ModelFolder]:
        try:
            return find_models(self._settings, self._base)
        except ConfigError as err:
            raise ModelNotReady(f"the model repository cannot be read: {err}") from err

    def _load(self, folder: ModelFolder, overrides: dict[str, Any]) -> Deferred[None]:
        """Serve one version; fires when it is ready."""
        wanted = source_of(folder, self._settings, overrides)
        version = next((version for version in self._server if version.key == wanted.key), None)
        if version is None or version.state in (ModelState.FAILED, ModelState.UNLOADED):
            # A version that cannot be loaded keeps the reason in its state.
            self._add(wanted, required=False).addErrback(lambda _: None)
            version = self._server.find(*wanted.key)
            return version.settled().addCallback(_check_ready, version)
        if version.state is ModelState.STOPPED:
            raise Draining("the server is being stopped and loads no more models")
        if not version.is_loaded:
            return version.settled().addCallback(lambda _: self._load(folder, overrides))
        if self._sources.get(wanted.key) == wanted and version.accepts:
            return succeed(None)
        return self._replace(wanted)

    def _add(self, wanted: VersionSource, required: bool) -> Deferred[None]:
        self._sources[wanted.key] = wanted
        return self._server.add(*wanted.definition_or_failure(self._models), required)

    def _replace(self, wanted: VersionSource) -> Deferred[None]:
        def replaced(_: None) -> None:
            self._sources[wanted.key] = wanted

        def refused(failure: Failure) -> None:
            raise ModelNotReady(failure.getErrorMessage())

        return self._server.replace(*wanted.definition_or_failure(self._models)).addCallbacks(
            replaced, refused
        )


def _at_start(settings: ServerSettings, folders: list[ModelFolder]) -> list[ModelFolder]:
    """Return those of `folders` whose versions serve from the start. Raises ConfigError."""
    wanted = settings.load_at_start
    if wanted is None:
        return folders
    known = {folder.name for folder in folders}
    for name in wanted:
        if name not in known:
            place = settings.origin("load_at_start")
            raise ConfigError(
                f"{place}: load_at_start: expected of {', '.join(sorted(known)) or 'none'}; got "
                f"{name!r}"
            )
    return [folder for folder in folders if folder.name in wanted]


def _check_ready(_: None, version: ModelVersion) -> None:
    if version.state is not ModelState.READY:
        raise ModelNotReady(f"model {version.title} is not ready: {version.status_text}")


def _all_ready(results: list[tuple[bool, Any]]) -> None:
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()

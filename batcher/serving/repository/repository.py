"""The models on disk, and which of them are served.

All at start, and what clients load and unload where they may.

A version is known by its files: one that is loaded again is left alone if nothing in its folder has
changed since, else the new one takes the old one's place without a pause. Files are looked at when
somebody asks; nothing polls them. Clients change one model at a time, a reload of the settings any
number of them, all or none (`rollout`, within `alone`, then `commit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import AlreadyCalledError, Deferred, DeferredList, DeferredLock, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError, Draining, ModelNotReady, Unavailable, UnknownModel
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.folders import ModelFolder, find_models
from batcher.serving.repository.rollout import Rollout
from batcher.serving.repository.source import VersionSource, given
from batcher.serving.server import ModelServer

Result = TypeVar("Result")

NOT_LOADED = "not loaded"

_GONE = frozenset({ModelState.UNLOADING, ModelState.UNLOADED})

PATIENCE = 600.0
"""Seconds that a client is kept waiting for a model to load or unload, which goes on without it."""


class Version(NamedTuple):
    """A version of a model, on disk or served.

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
        self._given: dict[tuple[str, str], VersionSource] = {}
        self._locks: dict[str, DeferredLock] = {}
        self._models = 1  # that share the cores

    def start(self) -> list[Deferred[None]]:
        """Begin to load what is to be served from the start.

        Each Deferred fails with ModelLoadError if it cannot be.

        Raises:
            ConfigError: a folder or a model that the settings name is not there.
        """
        folders = _at_start(self._settings, find_models(self._settings, self._base))
        self._models = len(folders)
        return [self._add(given(folder, self._settings, {}), required=True) for folder in folders]

    def rollout(self, settings: ServerSettings) -> Rollout:
        """Work out what other `settings`, and what has changed on disk, mean for the models.

        Nothing happens yet.
        """
        try:
            folders = find_models(settings, self._base)
            wanted = self._wanted(settings, folders)
            rows = [given(folder, settings, self._asked(folder)) for folder in wanted]
        except ConfigError as err:
            refused = Rollout(self._server, [], [], 0)
            refused.reasons.extend(str(err).splitlines())
            return refused
        coming = [
            row for row in rows if row != self._given.get(row.key) or not self._is_up(row.key)
        ]
        staying = {
            (folder.name, folder.version)
            for folder in (folders if settings.model_control == "explicit" else wanted)
        }
        going = [one for one in self._server if _key(one) in self._given.keys() - staying]
        return Rollout(self._server, coming, going, len(wanted))

    def commit(self, rollout: Rollout, settings: ServerSettings) -> None:
        """Make the change, all of which is loaded, and go by `settings` from now on."""
        self.controlled = settings.model_control == "explicit"
        self._settings = settings
        self._models = rollout.models
        self._given.update((one.key, one) for one in rollout.coming)
        for served in rollout.going:
            del self._given[_key(served)]
        rollout.commit()

    def alone(self, change: Callable[[], Deferred[Result]]) -> Deferred[Result]:
        """Make a change to any models when all that clients have begun is done.

        What they ask for meanwhile waits for it.
        """
        names = {one.spec.name for one in self._server}
        with suppress(ModelNotReady):
            names |= {folder.name for folder in self._on_disk()}
        locks = [self._lock(name) for name in names]

        def release(result: Any) -> Any:
            for lock in locks:
                lock.release()
            return result

        taken = DeferredList([lock.acquire() for lock in locks])
        return taken.addCallback(lambda _: change()).addBoth(release)

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
        return self._in_turn(name, partial(self._load_all, name, overrides))

    def unload(self, name: str) -> Deferred[None]:
        """Take every version of the model `name` out of service.

        Fires when what they had taken is answered.

        Raises:
            Unavailable: clients may not unload models.
            UnknownModel: there is none of that name.
        """
        self.check_controlled()
        if not any(served.spec.name == name for served in self._server):
            self._check_known(name)
        return self._in_turn(name, partial(self._unload_all, name))

    def versions(self) -> Iterator[Version]:
        """Yield every version, those that are served and, where clients may load models, those that are only on disk."""
        served = {(one.spec.name, one.spec.version): one for one in self._server}
        for one in served.values():
            yield Version(one.spec.name, one.spec.version, one.state, one.detail)
        for folder in self._on_disk() if self.controlled else ():
            if (folder.name, folder.version) not in served:
                yield Version(folder.name, folder.version, None, NOT_LOADED)

    def check_controlled(self) -> None:
        """Check that clients may load and unload models; raises Unavailable. Reactor thread."""
        if not self.controlled:
            raise Unavailable(
                "models are loaded and unloaded by clients under `model_control: explicit` alone"
            )

    def _check_known(self, name: str) -> None:
        if not any(folder.name == name for folder in self._on_disk()):
            raise UnknownModel(f"model: expected one in the repository; got {name!r:.200}")

    def _in_turn(self, name: str, change: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Make a change to a model when those before it are made.

        It is also made when whoever waits for it leaves.
        """
        told: Deferred[None] = Deferred()
        changed = self._lock(name).run(change)
        changed.addCallbacks(
            lambda _: _tell(told.callback, None), lambda failure: _tell(told.errback, failure)
        )
        return told.addTimeout(PATIENCE, self._server.clock, _still_changing)

    def _lock(self, name: str) -> DeferredLock:
        return self._locks.setdefault(name, DeferredLock())

    def _load_all(self, name: str, update: dict[str, Any]) -> Deferred[None]:
        folders = [folder for folder in self._on_disk() if folder.name == name]
        gone = [
            one
            for one in self._of(name)
            if one.spec.version not in {folder.version for folder in folders}
        ]
        attempts = [
            *map(self._server.unload, gone),
            *(self._load(folder, update) for folder in folders),
        ]
        return DeferredList(attempts, consumeErrors=True).addCallback(_all_ready)

    def _unload_all(self, name: str) -> Deferred[None]:
        return DeferredList(list(map(self._server.unload, self._of(name)))).addCallback(
            lambda _: None
        )

    def _of(self, name: str) -> list[ModelVersion]:
        return [served for served in self._server if served.spec.name == name]

    def _wanted(self, settings: ServerSettings, folders: list[ModelFolder]) -> list[ModelFolder]:
        """Return what is to be served.

        Where clients load and unload, a model that they have had to do with is left to them.
        """
        at_start = _at_start(settings, folders)
        if settings.model_control == "none":
            return at_start
        seen = {one.spec.name for one in self._server}
        up = {one.spec.name for one in self._server if one.state not in _GONE}
        return [
            folder
            for folder in folders
            if folder.name in up or (folder.name not in seen and folder in at_start)
        ]

    def _is_up(self, key: tuple[str, str]) -> bool:
        return any(_key(one) == key and one.state not in _GONE for one in self._server)

    def _asked(self, folder: ModelFolder) -> dict[str, Any]:
        """Return what a client asked for when it had that version loaded."""
        known = self._given.get((folder.name, folder.version))
        return known.asked if known is not None else {}

    def _on_disk(self) -> list[ModelFolder]:
        try:
            return find_models(self._settings, self._base)
        except ConfigError as err:
            raise ModelNotReady(f"the model repository cannot be read: {err}") from err

    def _load(self, folder: ModelFolder, update: dict[str, Any]) -> Deferred[None]:
        """Serve one version; fires when it is ready."""
        wanted = given(folder, self._settings, update)
        served = next((one for one in self._server if _key(one) == wanted.key), None)
        if served is None or served.state in (ModelState.FAILED, ModelState.UNLOADED):
            self._add(wanted, required=False).addErrback(lambda _: None)  # its state tells
            return self._ready(*wanted.key)
        if served.state is ModelState.STOPPED:
            raise Draining("the server is being stopped and loads no more models")
        if not served.is_loaded:
            return served.settled().addCallback(lambda _: self._load(folder, update))
        if self._given.get(wanted.key) == wanted and served.accepts:
            return succeed(None)
        return self._replace(wanted)

    def _ready(self, name: str, version: str) -> Deferred[None]:
        """Fire when that version is ready; fail with ModelNotReady if it is not going to be.

        May be cancelled.
        """
        served = self._server.find(name, version)
        return served.settled().addCallback(_check_ready, served)

    def _add(self, wanted: VersionSource, required: bool) -> Deferred[None]:
        self._given[wanted.key] = wanted
        return self._server.add(*wanted.offered(self._models), required)

    def _replace(self, wanted: VersionSource) -> Deferred[None]:
        def replaced(_: None) -> None:
            self._given[wanted.key] = wanted

        def refused(failure: Failure) -> None:
            raise ModelNotReady(failure.getErrorMessage())

        return self._server.replace(*wanted.offered(self._models)).addCallbacks(replaced, refused)


def _key(served: ModelVersion) -> tuple[str, str]:
    return served.spec.name, served.spec.version


def _at_start(settings: ServerSettings, folders: list[ModelFolder]) -> list[ModelFolder]:
    """Return those of `folders` that are served from the start. Raises ConfigError."""
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


def _tell(tell: Callable[[Any], None], result: Any) -> None:
    """Tell whoever still waits."""
    with suppress(AlreadyCalledError):
        tell(result)


def _still_changing(result: Any, seconds: float) -> Any:
    raise ModelNotReady(
        f"the model is still being loaded or unloaded after {seconds:.0f} s", retry_after=60
    )


def _check_ready(_: None, served: ModelVersion) -> None:
    if served.state is not ModelState.READY:
        raise ModelNotReady(f"model {served.title} is not ready: {served.told}")


def _all_ready(results: list[tuple[bool, Any]]) -> None:
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()

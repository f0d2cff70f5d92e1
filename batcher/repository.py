"""The models on disk, and which of them are served: all at start, and what clients load and unload where they may.

A version is known by its files: one that is loaded again is left alone if nothing in its folder has changed since, else the
new one takes the old one's place without a pause. Files are looked at when somebody asks; nothing polls them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import AlreadyCalledError, Deferred, DeferredList, DeferredLock, succeed
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.config.repository import ModelFolder, find_models
from batcher.config.settings import ServerSettings, share_threads
from batcher.errors import ConfigError, Draining, InvalidInput, ModelLoadError, ModelNotReady, Unavailable, UnknownModel
from batcher.models.loading import CheckedModel, Progress
from batcher.served import ModelState, ServedModel
from batcher.server import ModelServer
from batcher.spec import ModelSpec
from batcher.workers.thread import Load

NOT_LOADED = "not loaded"

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


class _Given(NamedTuple):
    """What a version was loaded from: its files, and its settings before threads were shared out."""

    files: tuple[tuple[str, int, int], ...]
    settings: ModelSettings


class ModelRepository:
    """Loads models from disk into a server. Reactor thread."""

    def __init__(self, server: ModelServer, settings: ServerSettings, base: Path) -> None:
        """Find what `settings` name, relative to the folder `base`; nothing is read yet."""
        self.controlled = settings.model_control == "explicit"
        self._server = server
        self._settings = settings
        self._base = base
        self._given: dict[tuple[str, str], _Given] = {}
        self._locks: dict[str, DeferredLock] = {}
        self._models = 1  # that share the cores

    def start(self) -> list[Deferred[None]]:
        """Begin to load what is to be served from the start; each Deferred fails with ModelLoadError if it cannot be.

        Raises:
            ConfigError: a folder or a model that the settings name is not there.
        """
        folders = find_models(self._settings, self._base)
        wanted = self._settings.load_at_start
        if wanted is not None:
            known = {folder.name for folder in folders}
            for name in wanted:
                if name not in known:
                    place = self._settings.origin("load_at_start")
                    raise ConfigError(f"{place}: load_at_start: expected of {', '.join(sorted(known)) or 'none'}; got {name!r}")
            folders = [folder for folder in folders if folder.name in wanted]
        self._models = len(folders)
        return [self._add(folder, self._settings.for_model(folder.name), required=True) for folder in folders]

    def load(self, name: str, parameters: dict[str, Any]) -> Deferred[None]:
        """Serve every version of the model `name` as it is on disk now; fires when all are ready.

        Args:
            name: the model's.
            parameters: those of the request; `config` may hold a model configuration as JSON with another `max_batch_size`.

        Raises:
            Unavailable: clients may not load models.
            UnknownModel: there is none of that name.
            InvalidInput: a parameter is not served.

        The Deferred fails with ModelNotReady if a version cannot be loaded.
        """
        self._check_controlled()
        update = _overrides(parameters)
        self._check_known(name)
        return self._in_turn(name, partial(self._load_all, name, update))

    def unload(self, name: str) -> Deferred[None]:
        """Take every version of the model `name` out of service; fires when what they had taken is answered.

        Raises:
            Unavailable: clients may not unload models.
            UnknownModel: there is none of that name.
        """
        self._check_controlled()
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

    def _check_controlled(self) -> None:
        if not self.controlled:
            raise Unavailable("models are loaded and unloaded by clients under `model_control: explicit` alone")

    def _check_known(self, name: str) -> None:
        if not any(folder.name == name for folder in self._on_disk()):
            raise UnknownModel(f"model: expected one in the repository; got {name!r:.200}")

    def _in_turn(self, name: str, change: Callable[[], Deferred[None]]) -> Deferred[None]:
        """Make a change to a model when those before it are made; it is also made when whoever waits for it leaves."""
        told: Deferred[None] = Deferred()
        lock = self._locks.setdefault(name, DeferredLock())
        changed = lock.run(change)
        changed.addCallbacks(lambda _: _tell(told.callback, None), lambda failure: _tell(told.errback, failure))
        return told.addTimeout(PATIENCE, self._server.clock, _still_changing)

    def _load_all(self, name: str, update: dict[str, Any]) -> Deferred[None]:
        folders = [folder for folder in self._on_disk() if folder.name == name]
        gone = [one for one in self._of(name) if one.spec.version not in {folder.version for folder in folders}]
        attempts = [*map(self._server.unload, gone), *(self._load(folder, update) for folder in folders)]
        return DeferredList(attempts, consumeErrors=True).addCallback(_all_ready)

    def _unload_all(self, name: str) -> Deferred[None]:
        return DeferredList(list(map(self._server.unload, self._of(name)))).addCallback(lambda _: None)

    def _of(self, name: str) -> list[ServedModel]:
        return [served for served in self._server if served.spec.name == name]

    def _on_disk(self) -> list[ModelFolder]:
        try:
            return find_models(self._settings, self._base)
        except ConfigError as err:
            raise ModelNotReady(f"the model repository cannot be read: {err}") from err

    def _load(self, folder: ModelFolder, update: dict[str, Any]) -> Deferred[None]:
        """Serve one version; fires when it is ready."""
        key = (folder.name, folder.version)
        served = next((one for one in self._server if (one.spec.name, one.spec.version) == key), None)
        settings = self._settings.for_model(folder.name).model_copy(update=update)
        if served is None or served.state in (ModelState.FAILED, ModelState.UNLOADED):
            self._add(folder, settings, required=False).addErrback(lambda _: None)  # its state tells
            return self._ready(*key)
        if served.state is ModelState.STOPPED:
            raise Draining("the server is being stopped and loads no more models")
        if served.state is not ModelState.READY:
            return served.settled().addCallback(lambda _: self._load(folder, update))
        if self._given.get(key) == _Given(_files(folder.folder), settings):
            return succeed(None)
        return self._replace(folder, settings)

    def _ready(self, name: str, version: str) -> Deferred[None]:
        """Fire when that version is ready; fail with ModelNotReady if it is not going to be. May be cancelled."""
        served = self._server.find(name, version)
        return served.settled().addCallback(_check_ready, served)

    def _add(self, folder: ModelFolder, settings: ModelSettings, required: bool) -> Deferred[None]:
        self._given[folder.name, folder.version] = _Given(_files(folder.folder), settings)
        return self._server.add(*_defined(folder, share_threads(settings, self._models)), required)

    def _replace(self, folder: ModelFolder, settings: ModelSettings) -> Deferred[None]:
        given = _Given(_files(folder.folder), settings)

        def replaced(_: None) -> None:
            self._given[folder.name, folder.version] = given

        def refused(failure: Failure) -> None:
            raise ModelNotReady(failure.getErrorMessage())

        replacing = self._server.replace(*_defined(folder, share_threads(settings, self._models)))
        return replacing.addCallbacks(replaced, refused)


def _tell(tell: Callable[[Any], None], result: Any) -> None:
    """Tell whoever still waits."""
    with suppress(AlreadyCalledError):
        tell(result)


def _still_changing(result: Any, seconds: float) -> Any:
    raise ModelNotReady(f"the model is still being loaded or unloaded after {seconds:.0f} s", retry_after=60)


def _defined(folder: ModelFolder, settings: ModelSettings) -> tuple[ModelDefinition, ModelSettings, Load | None]:
    """Return what to add for `folder`; a model whose definition is wrong fails to load, and keeps the reason visible."""
    try:
        return load_model_definition(folder.name, folder.version, folder.folder), settings, None
    except ConfigError as err:
        reason = str(err)

    def load(progress: Progress) -> CheckedModel:
        raise ModelLoadError(f"model {folder.name!r} version {folder.version}: {reason}")

    spec = ModelSpec(folder.name, folder.version, (), ())
    return ModelDefinition(spec, "python", folder.folder, folder.folder), settings, load


def _files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return path, time of change and size of every file of a version."""
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # it has just been removed
            if path.is_file() and "__pycache__" not in path.parts:
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)


def _overrides(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the parameters of a load change."""
    for key in parameters:
        if key != "config":
            raise InvalidInput(f"parameters: expected `config` alone; got {key!r:.80}: files are not taken from clients")
    text = parameters.get("config", "{}")
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidInput(f"config: expected a model configuration as JSON; got {text!r:.80}")
    size = config.get("max_batch_size", 1)
    if (
        config.keys() - {"name", "max_batch_size"}
        or isinstance(size, bool)
        or not isinstance(size, int)
        or not 0 < size < 1 << 31
    ):
        raise InvalidInput(f"config: expected max_batch_size of 1 and more alone, the rest is the server's; got {text!r:.200}")
    return {"max_batch_size": size} if "max_batch_size" in config else {}


def _check_ready(_: None, served: ServedModel) -> None:
    if served.state is not ModelState.READY:
        raise ModelNotReady(f"model {served.title} is not ready: {served.told}")


def _all_ready(results: list[tuple[bool, Any]]) -> None:
    for succeeded, result in results:
        if not succeeded:
            result.raiseException()

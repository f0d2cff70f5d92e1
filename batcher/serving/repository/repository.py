"""The models on disk, and which of them serve.

All models of the repository serve from the start, or those that the settings name. Clients load and
unload models where the settings let them. A version is known by its files: a version that is loaded
again is left alone if nothing in its folder has changed, else the new one takes the old one's place
without a pause. Files are looked at when somebody asks, and by `watch` where the settings say so.

Clients change one model at a time. A reload of the settings changes any number of models, all or
none: `rollout` works the change out, within `alone`, and `commit` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.core.error_text import brief
from batcher.errors import (
    ConfigError,
    Draining,
    Forbidden,
    ModelNotReady,
    ReloadRefused,
    UnknownModel,
)
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.repository.comparison import Comparison
from batcher.serving.repository.disk import ModelDisk
from batcher.serving.repository.listing import Listing, ModelFolder, reason_for
from batcher.serving.repository.loads import Loads
from batcher.serving.repository.overrides import check_overrides
from batcher.serving.repository.reading import (
    FoundVersion,
    Seen,
    at_start,
    loaded_at_start,
    served,
)
from batcher.serving.repository.remote import RemoteModels
from batcher.serving.repository.rollout import Rollout
from batcher.serving.repository.source import VersionSource
from batcher.serving.repository.stores.versions import Key
from batcher.serving.repository.trial_records import TrialRecords
from batcher.serving.repository.turns import ModelTurns
from batcher.serving.repository.watching import RepositoryWatch
from batcher.serving.server import ModelServer

Result = TypeVar("Result")

NOT_LOADED = "not loaded"

NO_MODEL = (
    "without a model that can be served (put a folder with a model.yaml into it, or serve one file "
    "with `batcher serve FILE`)"
)
"""What the repository is where it has no model."""


class ListedVersion(NamedTuple):
    """A version of a model, in the server or only on disk.

    Attributes:
        name: of the model.
        version: a decimal number.
        state: None where it is on disk alone.
        detail: what it is doing or why it does not serve, in words.
        public_detail: what clients may read of that.
    """

    name: str
    version: str
    state: ModelState | None
    detail: str
    public_detail: str


class ModelRepository:
    """Loads models from disk into a server. Reactor thread.

    Attributes:
        controlled: whether clients may load and unload models.
        watch: looks for changes from time to time.
    """

    def __init__(self, server: ModelServer, settings: ServerSettings, base: Path) -> None:
        """Find what `settings` name, relative to the folder `base`; nothing is read yet."""
        self.controlled = settings.model_control == "explicit"
        self._server = server
        # Absolute, since a model may change the working directory.
        base = base.absolute()
        sources: dict[Key, VersionSource] = {}
        self._remote = RemoteModels(server, settings, base, sources)
        self._disk = ModelDisk(server.pools.disk, server.seconds, base, self._remote.known)
        self._loads = Loads(server, self._disk, settings, sources)
        self._turns = ModelTurns(server.clock)
        self._comparison = Comparison(server, self._disk, self._remote, self._loads)
        self.watch = RepositoryWatch(self, server.clock, server.metrics)
        self._trials = TrialRecords(server, self._disk, settings)

    def start(self) -> Deferred[list[Deferred[None]]]:
        """Look for the versions that serve from the start, and begin to load them.

        Fires with a Deferred for each, which fails with ModelLoadError if it cannot be loaded.
        Until it fires the server is not ready. Fails with ConfigError: a folder or a model that the
        settings name is not there.
        """
        self._server.lifecycle.set_looking(True)
        settings, base = self._loads.settings, self._disk.base
        choose = partial(loaded_at_start, settings)
        fetched = self._recalled(settings).addCallback(
            lambda _: self._remote.fetch(settings, choose)
        )
        found = fetched.addCallback(
            lambda _: self._disk.read(lambda: at_start(settings, base, self._remote.known()))
        )
        return found.addCallback(self._start).addBoth(self._looked)

    def _recalled(self, settings: ServerSettings) -> Deferred[None]:
        """Have the states of trials in `settings`, which decide what has to be loaded."""
        settings.share_records(self._loads.settings)
        return self._trials.recall(settings)

    def _start(self, found: tuple[list[FoundVersion], Listing]) -> list[Deferred[None]]:
        if self._server.draining:
            raise Draining("the server was stopped before its models were loaded")
        versions, listing = found
        listing.warn()
        self._note_left_out(listing.left_out)
        self._loads.instances = sum(one.source.instances for one in versions)
        return [self._loads.start(one) for one in versions]

    def _looked(self, result: Result) -> Result:
        self._server.lifecycle.set_looking(False)
        return result

    def read(self, function: Callable[[], Result]) -> Deferred[Result]:
        """Run `function`, which reads the disk, beside the loop; as `ModelDisk.read`."""
        return self._disk.read(function)

    def rollout(self, settings: ServerSettings) -> Deferred[Rollout]:
        """Work out what other `settings`, and what has changed on disk, mean for the models.

        Nothing happens yet. To be called within `alone`: no model may change meanwhile.
        """
        recalled = self._recalled(settings)
        return recalled.addCallback(lambda _: self._comparison.rollout(settings))

    def look(self) -> Deferred[tuple[list[str], list[str]]]:
        """Fetch what is new in stores, and look at all folders, without changing anything.

        Fires with the models that seem to have changed, and with warnings for the log.
        """

        def seen(seen: Seen) -> tuple[list[str], list[str]]:
            self._note_left_out(seen.left_out)
            return seen.names, seen.warnings

        return self._comparison.look().addCallback(seen)

    def change(
        self, names: list[str], make: Callable[[list[Rollout]], Deferred[None]]
    ) -> Deferred[None]:
        """Call `make` with a rollout for each of the models `names` that has changed, `alone`."""
        return self.alone(lambda: self._comparison.rollouts(names).addCallback(make))

    def apply(self, rollout: Rollout) -> Deferred[list[str]]:
        """Make a change of models under the settings in force; fires with it, in words."""
        if rollout.reasons:
            return fail(ReloadRefused(*rollout.reasons))
        return rollout.make(lambda: self._apply(rollout))

    def _apply(self, rollout: Rollout) -> list[str]:
        self.commit(rollout, self._loads.settings)
        return rollout.changes()

    def _note_left_out(self, left_out: dict[str, str]) -> None:
        """Have clients told what is left out, and that the server needs a model to be ready."""
        lifecycle = self._server.lifecycle
        lifecycle.left_out.clear()
        lifecycle.left_out.update(left_out)
        # Where clients load the models, a server without models is what it should be.
        lifecycle.empty = "" if self.controlled else NO_MODEL

    def commit(self, rollout: Rollout, settings: ServerSettings) -> None:
        """Make the change `rollout`, all of which is loaded, and go by `settings` from now on."""
        self.controlled = settings.model_control == "explicit"
        loads = self._loads
        loads.settings = settings
        loads.instances = rollout.instances
        loads.sources.update((found.source.key, found.source) for found in rollout.coming)
        for version in rollout.going:
            del loads.sources[version.key]
        self._note_left_out(rollout.left_out)
        rollout.commit()

    def alone(self, change: Callable[[], Deferred[Result]]) -> Deferred[Result]:
        """Make a change to any models when every change that clients have begun is made.

        Changes that clients ask for meanwhile wait.
        """
        return self._turns.alone(change)

    def load(self, name: str, overrides: dict[str, Any]) -> Deferred[None]:
        """Serve every version of the model `name` as it is on disk now; fires when all are ready.

        Args:
            name: the model's.
            overrides: settings of the model, by name, that a client wants otherwise.

        Raises:
            Forbidden: clients may not load models.
            InvalidInput: the model's settings do not let clients have the `overrides`.

        The Deferred fails with UnknownModel, InvalidInput or ModelNotReady if the model is not
        there, its batches would take too much memory, or a version cannot be loaded.
        """
        self.check_controlled()
        check_overrides(overrides, self._loads.settings.for_model(name))

        def change() -> Deferred[None]:
            fetched = self._remote.fetch_model(self._loads.settings, name).addErrback(_unreadable)
            found = fetched.addCallback(lambda _: self._on_disk()).addCallback(_folders_of, name)
            found.addCallback(served, self._loads.settings)
            return found.addCallback(self._loads.load, name, overrides)

        return self._turns.one(name, change)

    def unload(self, name: str) -> Deferred[None]:
        """Take every version of the model `name` out of service.

        Fires when the requests that they had taken are answered; fails with UnknownModel if there
        is no model of that name.

        Raises:
            Forbidden: clients may not unload models.
        """
        self.check_controlled()

        def change() -> Deferred[None]:
            versions = self._loads.versions_of(name)
            if not versions:
                return self._on_disk().addCallback(_folders_of, name).addCallback(lambda _: None)
            return DeferredList(list(map(self._server.unload, versions))).addCallback(
                lambda _: None
            )

        return self._turns.one(name, change)

    def versions(self) -> Deferred[list[ListedVersion]]:
        """Return every version that the server knows.

        Where clients may load models, also the versions that are only on disk.
        """
        on_disk = self._on_disk() if self.controlled else succeed(Listing([], {}, {}))
        return on_disk.addCallback(self._listed)

    def _listed(self, listing: Listing) -> list[ListedVersion]:
        known = {version.key: version for version in self._server}
        listed = [_listed_version(version) for version in known.values()]
        return listed + [
            ListedVersion(folder.name, folder.version, None, NOT_LOADED, NOT_LOADED)
            for folder in listing.folders
            if (folder.name, folder.version) not in known
        ]

    def check_controlled(self) -> None:
        """Check that clients may load and unload models; raises Forbidden. Reactor thread."""
        if not self.controlled:
            raise Forbidden(
                "models are loaded and unloaded by clients under `model_control: explicit` alone"
            )

    def _on_disk(self) -> Deferred[Listing]:
        return self._disk.listing(self._loads.settings).addErrback(_unreadable)


def _listed_version(version: ModelVersion) -> ListedVersion:
    is_public = version.public_text == version.status_text
    public_detail = version.detail if is_public else version.state.value
    return ListedVersion(*version.key, version.state, version.detail, public_detail)


def _unreadable(failure: Failure) -> NoReturn:
    failure.trap(ConfigError)
    public = "the model repository cannot be read"
    raise ModelNotReady(f"{public}: {failure.value}", public=public) from failure.value


def _folders_of(listing: Listing, name: str) -> list[ModelFolder]:
    """Return the folders in `listing` that hold versions of the model `name`.

    Raises UnknownModel; ModelNotReady: a folder of the model cannot be read.
    """
    if reason := reason_for(name, listing.unread):
        public = "the folder of the model cannot be read"
        raise ModelNotReady(f"{public}: {reason}", public=public)
    found = [folder for folder in listing.folders if folder.name == name]
    if not found:
        raise UnknownModel(f"model: expected one in the repository; got {brief(name, 200)}")
    return found

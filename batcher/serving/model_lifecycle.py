"""The lives of models: how versions come, take each other's place, and go.

A version is made beside those that serve, loaded, and then put into the table of versions. What had
its name and version before answers its last requests and is unloaded. So no request is lost when a
model is loaded anew, and a version that cannot be loaded changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.epoch import Epoch
from batcher.core.error_text import brief
from batcher.core.names import name_fault
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError, ModelLoadError
from batcher.serving.assembly import Assembly
from batcher.serving.model_version import Keeper, ModelState, ModelVersion, progress_text
from batcher.serving.stages.stage import Stage
from batcher.serving.versions import VersionTable
from batcher.workers.thread import ModelLoader


class ModelLifecycle(Keeper):
    """Makes, keeps and ends the versions of models. Reactor thread.

    Attributes:
        versions: every version that can be found, by name and version.
        epoch: ends whenever a model comes, goes or changes its state; what was looked up before is
            then to be looked up again.
        looking: whether the models that are to serve are still looked for.
        fetched: how far versions are that come from a store while models are looked for, in words
            by their titles.
        left_out: why something in the model repository is not served, by its path there.
        empty: in words, what the model repository is while the server has no model, where the
            server is not ready without one; else empty.
        ending: whether the server is about to end, and should be sent no more requests.
        draining: whether no more requests are taken.
        drain_timeout_s: seconds that a version which is unloaded has for its last answers.
        turns: say when a model may load.
        name_stages: what every request passes first.
        alive: every version that has not ended, those that do not serve yet included.
        watchers: called whenever an epoch has ended.
        progress: told a model's title and what is being done with it.
    """

    looking = False

    def __init__(
        self, parts: Assembly, progress: Callable[[str, str], None], drain_timeout_s: float
    ) -> None:
        """Start without models.

        Args:
            parts: makes what versions are put together from.
            progress: told a model's title and what is being done with it.
            drain_timeout_s: seconds that a version which is unloaded has for its last answers.
        """
        self.versions = VersionTable()
        self.epoch = Epoch()
        self.ending = False
        self.fetched: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.empty = ""
        self.draining = False
        self.drain_timeout_s = drain_timeout_s
        self.turns = parts.turns
        self._parts = parts
        self.progress = progress
        self.name_stages: tuple[Stage, ...] = ()
        self.alive: set[ModelVersion] = set()
        self.watchers: list[Callable[[], None]] = []
        self._all_ended = Waiters()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever an epoch has ended."""
        self.watchers.append(changed)

    def make(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: ModelLoader | None = None,
        required: bool = True,
    ) -> ModelVersion:
        """Return a version beside those that serve; `start` it, then `adopt` or `unload` it.

        `add` says the rest. Raises ConfigError: no path can hold the model's name.
        """
        if fault := name_fault(definition.spec.name):
            got = brief(definition.spec.name, 200)
            raise ConfigError(f"model: expected a name that fits into a path; got {got}: {fault}")
        version = ModelVersion(definition, settings, self._parts, self, load, required)
        version.set_name_stages(self.name_stages)
        self.alive.add(version)
        return version

    def add(
        self,
        definition: ModelDefinition,
        settings: ModelSettings,
        load: ModelLoader | None = None,
        required: bool = True,
    ) -> Deferred[None]:
        """Start to load a version; `ModelServer.add` says the rest."""
        name, number = definition.spec.name, definition.spec.version
        earlier = self.versions.get(name, number)
        if earlier is not None:
            required = required or earlier.required
            if earlier.state not in (ModelState.FAILED, ModelState.UNLOADED):
                raise ConfigError(f"model {name!r}: version {number} is there twice")
            earlier.unload()
        version = self.make(definition, settings, load, required)
        self._put(version)
        return version.start()

    def replace(
        self, definition: ModelDefinition, settings: ModelSettings, load: ModelLoader | None = None
    ) -> Deferred[None]:
        """Load a version anew, in place of the one that serves; `ModelServer.replace` says more."""
        # First, since nobody would ever end a version that is made and then not started.
        earlier = self.versions.find(definition.spec.name, definition.spec.version)
        version = self.make(definition, settings, load)

        def swap(_: None) -> None:
            if self.versions.get(*version.key) is not earlier or not earlier.is_loaded:
                raise ModelLoadError(
                    f"model {version.title}: it was unloaded or replaced while it was loaded anew"
                )
            self.adopt(version)

        def give_up(failure: Failure) -> Failure:
            version.unload()
            return failure

        return version.start().addCallback(swap).addErrback(give_up)

    def adopt(self, version: ModelVersion) -> None:
        """Have `version`, which was made here and is ready, take requests.

        The version with the same name and number, if there is one, is unloaded.
        """
        earlier = self.versions.get(*version.key)
        if earlier is not None:
            version.required = earlier.required
            if version.autoscaler is not None:
                version.autoscaler.begin_with(earlier.workers.wanted)
        self._put(version)
        if earlier is not None:
            self.unload(earlier)

    def _put(self, version: ModelVersion) -> None:
        self.versions.put(version)
        version.adopted = True
        counts = self._parts.metrics.model(*version.key)
        counts.load, counts.instances = version.scheduler, version.workers
        self.end_epoch()

    def forget(self, version: ModelVersion) -> Deferred[None]:
        """Unload `version` as `unload` does; from now on nobody finds it."""
        self.versions.remove(version)
        self._parts.metrics.ended(*version.key)
        self.end_epoch()
        return self.unload(version)

    def unload(self, version: ModelVersion) -> Deferred[None]:
        """Let go of `version` when it has answered what it has taken; fires when that is done.

        Its last answers have `drain_timeout_s`.
        """
        version.unload()
        if version.state is ModelState.UNLOADING:
            cut: Any = self._parts.clock.callLater(self.drain_timeout_s, version.cut_short)
            version.settled().addCallback(lambda _: cut.cancel() if cut.active() else None)
        return version.settled()

    def set_name_stages(self, *stages: Stage) -> None:
        """Send the requests of all models through `stages` first, from now on."""
        self.name_stages = stages
        for version in self.alive:
            version.set_name_stages(stages)
        self.end_epoch()

    def announce_end(self) -> None:
        """Be about to end, and go on to take requests."""
        self.ending = True
        self.end_epoch()

    def set_looking(self, looking: bool) -> None:
        """Say whether the models that are to serve are still looked for; not ready meanwhile."""
        self.looking = looking
        self.fetched.clear()
        self.end_epoch()

    def refuse_requests(self) -> None:
        """Take no more requests."""
        self.ending = self.draining = True
        self.end_epoch()

    def drain(self) -> Deferred[None]:
        """Take no more requests; fires when those that were taken are answered."""
        self.refuse_requests()
        # Pipelines first: what they have taken still needs the models.
        pipelines = [each.drain() for each in self.alive if each.definition.plan is not None]
        drained: Deferred[Any] = DeferredList(pipelines)
        drained.addCallback(lambda _: DeferredList([each.drain() for each in self.alive]))
        return drained.addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """Fail what waits or runs, and end the workers; fires when all workers have ended."""
        for version in list(self.alive):
            version.stop()
        return self._all_ended.wait() if self.alive else succeed(None)

    def changed(self, version: ModelVersion) -> None:
        """Tell of the new state of `version`, and end the epoch."""
        self.end_epoch(version)

    def reported(self, version: ModelVersion, text: str) -> None:
        """Tell in words what `version` does."""
        if self.draining:
            return
        serving = self.versions.get(*version.key)
        if not version.adopted:
            # Versions that were loaded for nothing are let go of, which takes nothing from clients.
            text = f"a new one, which does not serve yet: {text}"
        elif serving is not None and serving is not version:
            text = f"the earlier one, which was replaced: {text}"
        self.progress(version.title, text)

    def ended(self, version: ModelVersion) -> None:
        """Forget `version`, whose workers have ended."""
        self.alive.discard(version)
        if not self.alive:
            self._all_ended.release()

    def successor(self, version: ModelVersion) -> ModelVersion:
        """Return what takes requests in place of `version`."""
        return self.versions.successor(version)

    def end_epoch(self, version: ModelVersion | None = None) -> None:
        """Have all who looked something up look again, and tell of the new state of `version`."""
        self.epoch.over = True
        self.epoch = Epoch()
        if version is not None:
            self.reported(version, progress_text(version))
        for watcher in self.watchers:
            watcher()

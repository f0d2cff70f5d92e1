"""What stores and the disk have that is other than what serves, for a reload and for a look."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.serving.model_version import GONE
from batcher.serving.repository.disk import ModelDisk
from batcher.serving.repository.fetching import Choose
from batcher.serving.repository.listing import Known
from batcher.serving.repository.loads import Loads
from batcher.serving.repository.looks import Looks
from batcher.serving.repository.reading import (
    Change,
    Seen,
    Standing,
    after_look,
    at_look,
    at_reload,
    at_reload_wanted,
    find_sound,
)
from batcher.serving.repository.remote import RemoteModels
from batcher.serving.repository.rollout import Rollout
from batcher.serving.server import ModelServer

ReadChange = Callable[[ServerSettings, Path, Standing, Known], Change]
"""Returns what changes, as `at_reload` or `after_look`. Raises ConfigError. Disk thread."""


class Comparison:
    """Compares what serves with what is there; changes nothing. Reactor thread."""

    def __init__(
        self, server: ModelServer, disk: ModelDisk, remote: RemoteModels, loads: Loads
    ) -> None:
        """Compare what `loads` has put into `server` with what `disk` and `remote` have."""
        self._server = server
        self._disk = disk
        self._remote = remote
        self._loads = loads
        self._looks = Looks()

    def rollout(self, settings: ServerSettings) -> Deferred[Rollout]:
        """Work out what other `settings`, and what has changed on disk, mean for the models."""
        standing = self._standing()
        fetched = self._remote.fetch(settings, _chosen(settings, standing))
        change = fetched.addCallback(lambda _: self._read(at_reload, settings, standing))
        return change.addCallback(_warned).addCallbacks(self._rollout, self._refused)

    def _read(
        self, read: ReadChange, settings: ServerSettings, standing: Standing
    ) -> Deferred[Change]:
        base = self._disk.base
        return self._disk.read(lambda: read(settings, base, standing, self._remote.known()))

    def look(self) -> Deferred[Seen]:
        """Fetch what is new in stores, and look at all folders, without changing anything."""
        settings, standing, base = self._loads.settings, self._standing(), self._disk.base

        def look() -> Seen:
            return at_look(settings, base, standing, self._remote.known(), self._looks)

        choose = _chosen(settings, standing)
        fetched = self._remote.fetch(settings, choose, patient=False, find=find_sound)
        return fetched.addCallback(lambda _: self._disk.read(look))

    def rollouts(self, names: list[str]) -> Deferred[list[Rollout]]:
        """Work out what has changed of each of the models `names`, of what was fetched already."""

        def rollouts(change: Change) -> list[Rollout]:
            self._looks.compared(names)
            each = [self._rollout(change.of(name)) for name in names]
            return [rollout for rollout in each if rollout.coming or rollout.going]

        change = self._read(after_look, self._loads.settings, self._standing())
        return change.addCallback(rollouts)

    def _rollout(self, change: Change) -> Rollout:
        ours = self._loads.sources.keys() - change.staying
        if change.model:
            ours = {key for key in ours if key[0] == change.model}
        going = [version for version in self._server if version.key in ours]
        left_out = change.listing.left_out
        return Rollout(self._server, change.coming, going, change.instances, left_out)

    def _refused(self, failure: Failure) -> Rollout:
        failure.trap(ConfigError)
        refused = Rollout(self._server, [], [], 0, {})
        refused.reasons.extend(str(failure.value).splitlines())
        return refused

    def _standing(self) -> Standing:
        up = {version.key for version in self._server if version.state not in GONE}
        sources = self._loads.sources
        return Standing(
            frozenset(version.spec.name for version in self._server),
            frozenset(name for name, _ in up),
            {key: source for key, source in sources.items() if key in up},
            {key: source.overrides for key, source in sources.items()},
        )


def _chosen(settings: ServerSettings, standing: Standing) -> Choose:
    """Return what chooses the versions that are to serve."""
    return partial(at_reload_wanted, settings, standing=standing)


def _warned(change: Change) -> Change:
    change.listing.warn()
    return change

"""Which version answers a request that names a label, or no version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed

from batcher.config.settings import ServerSettings
from batcher.errors import InvalidInput
from batcher.serving.canaries.division import CanaryDivision, Records, Save
from batcher.serving.canaries.records import Record
from batcher.serving.model_version import ModelVersion, not_ready_error
from batcher.serving.servable import Servable
from batcher.serving.shared_name import SharedName, Surroundings, is_shared

ReadyModel = Callable[[str, str], ModelVersion]
"""`ModelServer.ready_model`."""


def _forget(name: str, record: Record) -> Deferred[None]:
    """Keep nothing: an embedding program has no folder for states."""
    return succeed(None)


class Traffic:
    """Directs the requests of each model as the settings say. Reactor thread.

    Attributes:
        save: keeps the record of a model's trial beyond the life of the server.
        let_go: lets other servers keep records in the same place; called at the end.
    """

    def __init__(self, around: Surroundings, ready_model: ReadyModel) -> None:
        """Direct requests to the versions that `around` has; `follow` says how.

        `ready_model` finds one version that can answer.
        """
        self._around = around
        self._ready_model = ready_model
        self.save: Save = _forget
        self.let_go: Callable[[], Deferred[None]] = partial(succeed, None)
        self._settings = ServerSettings()
        self._names: dict[str, SharedName | None] = {}

    def follow(self, settings: ServerSettings) -> None:
        """Go by `settings` from now on; models whose settings have not changed keep their state."""
        self.keep()
        self._settings = settings
        self._names = {
            name: shared
            for name, shared in self._names.items()
            if shared is not None and shared.settings == settings.for_model(name)
        }
        lifecycle = self._around.lifecycle
        lifecycle.versions.number_of = self._number_of
        lifecycle.end_epoch()

    def servable(self, name: str, version: str = "") -> Servable:
        """Return what answers requests for a version of a model, or for the model's name.

        Raises as `ModelServer.ready_model` does.
        """
        found = self._ready_model(name, version)
        if version:
            return found
        shared = self.shared(name)
        return found if shared is None else shared.servable()

    def behind(self, name: str, version: str = "") -> Servable:
        """Return what answers the steps of pipelines as `servable` does for clients.

        That goes on while the server drains: what a pipeline has taken still needs its models.
        """
        found = self._around.lifecycle.versions.find(name, version)
        if not found.accepts:
            raise not_ready_error(found, retry_after=5)
        shared = None if version else self.shared(name)
        return found if shared is None else shared.servable()

    def shared(self, name: str) -> SharedName | None:
        """Return what shares the requests of the model `name`, which exists; None without."""
        if name not in self._names:
            own, again = self._settings.for_model(name), partial(self.servable, name)
            records = Records(self._settings.records, lambda *record: self.save(*record))
            self._names[name] = (
                SharedName(name, own, self._around, again, records) if is_shared(own) else None
            )
        return self._names[name]

    def keep(self) -> Deferred[None]:
        """Keep the states of all trials beyond the life of the server; fires when that is done."""
        kept: Deferred[None] = succeed(None)
        for shared in self._names.values():
            if shared is not None and isinstance(shared.answering, CanaryDivision):
                kept = shared.answering.keep()  # the last write ends last
        return kept

    def canary(self, name: str) -> CanaryDivision:
        """Return the trials of the model `name`.

        Raises UnknownModel; InvalidInput: the settings name no canary of the model.
        """
        self._around.lifecycle.versions.find(name)
        shared = self.shared(name)
        if shared is None or not isinstance(shared.answering, CanaryDivision):
            raise InvalidInput(
                f"model {name!r}: expected a model with the setting `canary`; it has none"
            )
        return shared.answering

    def _number_of(self, name: str, label: str) -> str:
        labels = self._settings.for_model(name).labels
        return str(labels[label]) if label in labels else ""

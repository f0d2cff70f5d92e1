"""Which version answers a request that names a label, or no version."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.logger import Logger

from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.epoch import Epoch
from batcher.serving.divisions import FixedDivision
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.model_version import ModelVersion
from batcher.serving.named_model import NamedModel, alike
from batcher.serving.servable import Servable
from batcher.serving.stages.split import SplitStage
from batcher.serving.variant_metrics import VariantMetrics
from batcher.workers.pools import Pools

_log = Logger()

ReadyModel = Callable[[str, str], ModelVersion]
"""`ModelServer.ready_model`."""


class Traffic:
    """Directs the requests of each model as the settings say. Reactor thread.

    Attributes:
        lifecycle: has the versions.
        metrics: where requests are counted by version.
        pools: run what is too slow for the loop.
        seconds: the clock.
        random: divides requests without a route.

    Args:
        lifecycle: see above, as the next ones.
        metrics: likewise.
        pools: likewise.
        seconds: likewise.
        ready_model: finds one version that can answer.
        random: None for one of the traffic's own.
    """

    def __init__(
        self,
        lifecycle: ModelLifecycle,
        ready_model: ReadyModel,
        metrics: VariantMetrics,
        pools: Pools,
        seconds: Callable[[], float],
        random: Random | None = None,
    ) -> None:
        """Direct requests to the versions of `lifecycle`; `follow` says how."""
        self.lifecycle = lifecycle
        self.metrics = metrics
        self.pools = pools
        self.seconds = seconds
        self.random = random or Random()
        self._ready_model = ready_model
        self._settings = ServerSettings()
        self._models: dict[str, _SharedName | None] = {}

    def follow(self, settings: ServerSettings) -> None:
        """Go by `settings` from now on."""
        self._settings = settings
        kept = {name: model for name, model in self._models.items() if model is not None}
        self._models = {
            name: model
            for name, model in kept.items()
            if model.settings == settings.for_model(name)
        }
        self.lifecycle.versions.number_of = self._number_of
        self.lifecycle.end_epoch()

    def servable(self, name: str, version: str = "") -> Servable:
        """Return what answers requests for a version of a model, or for the model's name.

        Raises as `ModelServer.ready_model` does.
        """
        found = self._ready_model(name, version)
        if version:
            return found
        if name not in self._models:
            own = self._settings.for_model(name)
            self._models[name] = _SharedName(name, own, self) if own.traffic else None
        shared = self._models[name]
        return found if shared is None else shared.servable()

    def _number_of(self, name: str, label: str) -> str:
        labels = self._settings.for_model(name).labels
        return str(labels[label]) if label in labels else ""


class _SharedName:
    """The name of one model whose versions share its requests. Reactor thread."""

    def __init__(self, name: str, settings: ModelSettings, traffic: Traffic) -> None:
        self.settings = settings
        self._name = name
        self._traffic = traffic
        self._division = FixedDivision(name, settings, traffic.metrics, traffic.random)
        self._known: tuple[Epoch, Servable] | None = None
        self._misfits: set[str] = set()

    def servable(self) -> Servable:
        """Return what answers requests of the name in this epoch. Raises ModelNotReady."""
        epoch = self._traffic.lifecycle.epoch
        if self._known is None or self._known[0] is not epoch:
            self._known = epoch, self._servable()
        return self._known[1]

    def _servable(self) -> Servable:
        traffic = self._traffic
        found = map(self._version, self._division.versions)
        ready = [version for version in found if version is not None and version.accepts]
        if not ready:
            raise self._division.not_ready()
        base = ready[0]
        fitting = {each.spec.version: each for each in ready if alike(each, base)}
        self._tell_misfits(base, {each.spec.version for each in ready} - fitting.keys())
        stages = (
            *traffic.lifecycle.name_stages,
            SplitStage(self._division, fitting, traffic.seconds),
        )
        return NamedModel(base, fitting, stages, self._again, traffic.pools, traffic.seconds)

    def _version(self, number: str) -> ModelVersion | None:
        return self._traffic.lifecycle.versions.get(self._name, number)

    def _again(self) -> Servable:
        return self._traffic.servable(self._name)

    def _tell_misfits(self, base: ModelVersion, misfits: set[str]) -> None:
        """Say in the log which versions get no requests, once for each."""
        for number in misfits - self._misfits:
            _log.warn(
                "model {name}/{number} gets none of the requests that it should share: expected "
                "the inputs and outputs of version {base}",
                name=self._name,
                number=number,
                base=base.spec.version,
            )
        self._misfits = misfits

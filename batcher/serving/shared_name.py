"""The name of one model whose requests are more than one version's: divided, or copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from batcher.batching.scheduler import CallSoon
from batcher.config.model_settings import ModelSettings
from batcher.core.epoch import Epoch
from batcher.serving.canaries.division import CanaryDivision, Records
from batcher.serving.divisions import Answering, FixedDivision, Newest, none_ready
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.model_version import ModelVersion
from batcher.serving.named_model import NamedModel, alike
from batcher.serving.servable import Servable
from batcher.serving.stages.shadow import Copies, ShadowStage
from batcher.serving.stages.split import SplitStage
from batcher.serving.stages.stage import Stage
from batcher.workers.pools import Pools

_log = Logger()


class Surroundings(NamedTuple):
    """What all shared names use.

    Attributes:
        lifecycle: has the versions.
        metrics: where requests are counted by version.
        pools: run what is too slow for the loop.
        clock: the only time there is.
        call_soon: calls a function in the next turn of the loop.
        random: divides requests without a route, and chooses those that are copied.
    """

    lifecycle: ModelLifecycle
    metrics: ServerMetrics
    pools: Pools
    clock: IReactorTime
    call_soon: CallSoon
    random: Random


def is_shared(settings: ModelSettings) -> bool:
    """Return whether requests of a model with these settings are more than one version's."""
    return bool(settings.traffic or settings.shadow or settings.canary)


class SharedName:
    """Makes the servable of one name, anew in each epoch. Reactor thread.

    Attributes:
        settings: of the model.
        answering: says which versions may answer.
    """

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        around: Surroundings,
        again: Callable[[], Servable],
        records: Records,
    ) -> None:
        """Share the requests of the model `name` as `settings` say.

        `again` returns the servable of the name in a later epoch; `records` has the states of
        trials.
        """
        self.settings = settings
        self._name = name
        self._around = around
        self._again = again
        self._copies = Copies()
        self._known: tuple[Epoch, Servable] | None = None
        self._misfits: set[str] = set()
        self.answering = self._answering(records)

    def servable(self) -> Servable:
        """Return what answers requests of the name in this epoch. Raises ModelNotReady."""
        epoch = self._around.lifecycle.epoch
        if self._known is None or self._known[0] is not epoch:
            self._known = epoch, self._servable()
        return self._known[1]

    def _answering(self, records: Records) -> Answering:
        name, own, around = self._name, self.settings, self._around
        variants, versions = around.metrics.variants, around.lifecycle.versions
        if own.traffic:
            return FixedDivision(name, own, variants, around.random)
        if own.canary is not None:
            metrics = (variants, around.metrics.canaries)
            changed = around.lifecycle.end_epoch
            arguments = (metrics, around.clock.seconds, around.random, changed)
            return CanaryDivision(name, own, partial(versions.named, name), records, *arguments)
        return Newest(self.settings.shadowed, partial(versions.ready_versions, name))

    def _servable(self) -> Servable:
        wanted, around = self.answering.versions(), self._around
        found = [self._version(number) for number in wanted]
        ready = [version for version in found if version is not None and version.accepts]
        if not ready:
            raise none_ready(self._name, wanted)
        base = ready[0]
        fitting = {each.spec.version: each for each in ready if alike(each, base)}
        shadow = self._version(self.settings.shadowed)
        others = [*ready, *([shadow] if shadow is not None and shadow.accepts else [])]
        self._tell_misfits(base, {each.spec.version for each in others if not alike(each, base)})
        stages = tuple(self._stages(base, fitting))
        return NamedModel(base, fitting, stages, self._again, around.pools, around.clock.seconds)

    def _stages(self, base: ModelVersion, fitting: dict[str, ModelVersion]) -> Iterator[Stage]:
        around, shadow = self._around, self.settings.shadow
        yield from around.lifecycle.name_stages
        seconds = around.clock.seconds
        if self.answering.division is not None:
            yield SplitStage(self.answering.division, fitting, seconds)
        if shadow is not None:
            counts = around.metrics.shadows.of(self._name, self.settings.shadowed)
            arguments = (self._copies, counts, seconds, around.call_soon, around.random)
            yield ShadowStage(shadow, partial(self._shadow_like, base), *arguments)

    def _shadow_like(self, base: ModelVersion) -> ModelVersion | None:
        """Return the version that gets copies; None where it takes other requests than `base`."""
        shadow = self._version(self.settings.shadowed)
        return shadow if shadow is not None and alike(shadow, base) else None

    def _version(self, number: str) -> ModelVersion | None:
        return self._around.lifecycle.versions.get(self._name, number)

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

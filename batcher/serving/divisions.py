"""Divisions of a model's requests among its versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelNotReady
from batcher.serving.stages.split import Split
from batcher.serving.variant_metrics import VariantMetrics


class FixedDivision:
    """Divides by the shares of the setting `traffic`. Reactor thread.

    What a version would get that cannot answer goes to the version with the largest share that can.
    """

    def __init__(
        self, name: str, settings: ModelSettings, metrics: VariantMetrics, random: Random
    ) -> None:
        """Divide the requests of the model `name`, and count them in `metrics`."""
        self._name = name
        self._number_of: Callable[[str], str] = settings.number_of
        self._split = Split(name, settings.traffic, random)
        shares = settings.traffic
        sides = sorted((side for side in shares if shares[side]), key=lambda side: -shares[side])
        self.versions = [settings.number_of(side) for side in sides]
        self._metrics = metrics

    def pick(self, route: str, fitting: Mapping[str, Any]) -> str:
        """Return the number of the version that gets a request with `route`; `Division` says more.

        Reactor thread.
        """
        version = self._number_of(self._split.side(route))
        if version in fitting:
            return version
        for other in self.versions:
            if other in fitting:
                return other
        raise self.not_ready()

    def not_ready(self) -> ModelNotReady:
        """Return the error that says that no version can answer which is meant to."""
        wanted = " or ".join(self.versions)
        return ModelNotReady(
            f"model {self._name!r} is not ready: expected version {wanted}, which `traffic` names; "
            "none of them can answer",
            retry_after=5,
        )

    def heard(self, version: str, seconds: float, error: BaseException | None) -> None:
        """Count an answer of `version`. Reactor thread."""
        self._metrics.of(self._name, version).count(seconds, error)

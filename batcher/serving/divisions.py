"""Which versions answer the requests that name no version: some division of them, or the newest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelNotReady
from batcher.serving.stages import split
from batcher.serving.variant_metrics import VariantMetrics


class Answering(Protocol):
    """Says which versions may answer. Reactor thread."""

    division: split.Division | None
    """Divides the requests among them; None: the first one that can answer gets all."""

    def versions(self) -> list[str]:
        """Return the numbers of the versions that may answer, the most important first."""


class Newest:
    """The newest version that is no shadow answers. Reactor thread."""

    division: split.Division | None = None

    def __init__(self, shadow: str, ready_versions: Callable[[], list[str]]) -> None:
        """Choose among `ready_versions`, ascending, but for the number `shadow`."""
        self._shadow = shadow
        self._ready_versions = ready_versions

    def versions(self) -> list[str]:
        """Return the numbers of the versions that may answer, the newest first."""
        return [each for each in reversed(self._ready_versions()) if each != self._shadow]


class FixedDivision:
    """Divides by the shares of the setting `traffic`. Reactor thread.

    What a version would get that cannot answer goes to the version with the largest share that can.
    """

    def __init__(
        self, name: str, settings: ModelSettings, metrics: VariantMetrics, random: Random
    ) -> None:
        """Divide the requests of the model `name`, and count them in `metrics`."""
        self.division: split.Division | None = self
        self._name = name
        self._number_of: Callable[[str], str] = settings.number_of
        self._split = split.Split(name, settings.traffic, random)
        shares = settings.traffic
        sides = sorted((side for side in shares if shares[side]), key=lambda side: -shares[side])
        self._versions = [settings.number_of(side) for side in sides]
        self._metrics = metrics

    def versions(self) -> list[str]:
        """Return the numbers of the versions that have a share, the largest first."""
        return self._versions

    def pick(self, route: str, fitting: Mapping[str, Any]) -> str:
        """Return the number of the version that gets a request; `Division` says more."""
        version = self._number_of(self._split.side(route))
        return version if version in fitting else first_of(self._versions, fitting, self._name)

    def heard(self, version: str, seconds: float, error: BaseException | None) -> None:
        """Count an answer of `version`. Reactor thread."""
        self._metrics.of(self._name, version).count(seconds, error)


def first_of(versions: Sequence[str], fitting: Mapping[str, Any], name: str) -> str:
    """Return the first of the `versions` of the model `name` that is `fitting`.

    Raises ModelNotReady.
    """
    for version in versions:
        if version in fitting:
            return version
    raise none_ready(name, versions)


def none_ready(name: str, versions: Sequence[str]) -> ModelNotReady:
    """Return the error that says that none of the `versions` which may answer can."""
    wanted = " or ".join(versions) or "of its own, besides the shadow,"
    return ModelNotReady(
        f"model {name!r} is not ready: expected version {wanted} to answer; none can now",
        retry_after=5,
    )

"""Which versions of a model serve, and how its requests are divided among them.

A version is named by its number or by a label. A setting that names a version also has that version
loaded, whatever `versions` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from batcher.config.reading import Integer, Number, refuse_boolean
from batcher.config.values import Count, Section

LATEST = "latest"
"""The word for the newest version; no label may be called so."""

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

_TIMES = "a time such as 30s, 10m or 2h"


class Latest(Section):
    """The newest versions of a model.

    Attributes:
        latest: how many of them.
    """

    latest: Count


VersionNumber = Annotated[Integer, Field(ge=0, le=1 << 63)]


def _versions(value: Any) -> Any:
    # Checked here, since of four kinds of values each would say what is wrong with the others.
    is_fine = value in ("all", LATEST) or isinstance(value, Latest)
    if isinstance(value, dict):
        is_fine = value.keys() == {LATEST} and _is_whole(value[LATEST], 1)
    elif isinstance(value, list | tuple):
        is_fine = all(_is_whole(each, 0) for each in value)
    if is_fine:
        return value
    raise ValueError("all, latest, {latest: 2}, or a list of numbers such as [3, 5]")


def _is_whole(value: Any, least: int) -> bool:
    """Return whether `value` is a number of a version, or of versions, from `least` on."""
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and int(value) >= least
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


Versions = Annotated[
    Literal["all", "latest"] | Latest | tuple[VersionNumber, ...], BeforeValidator(_versions)
]


def _label(value: str) -> str:
    if value == LATEST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", value):
        raise ValueError(
            "a label that begins with a letter, such as stable, and is neither a number nor latest"
        )
    return value


Label = Annotated[str, AfterValidator(_label)]


def _version_name(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError("the number of a version, or a label")
    return value.lstrip("0") or "0" if value.isdecimal() and value.isascii() else value


VersionName = Annotated[str, BeforeValidator(_version_name)]
"""A number as text, or a label."""

Weight = Annotated[Number, Field(ge=0, le=1e9)]


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value)
    if found is None:
        raise ValueError(_TIMES)
    return float(found[1]) * _UNITS_S[found[2]]


Duration = Annotated[
    float,
    Field(gt=0, le=30 * 86_400, allow_inf_nan=False),
    BeforeValidator(_seconds),
    refuse_boolean(_TIMES),
]
"""Seconds, written as a number or with a unit."""

Percent = Annotated[Number, Field(gt=0, le=100)]


def _rising(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)):
        raise ValueError("percentages of which each is larger than the one before")
    return value


class Shadow(Section):
    """A version that gets copies of requests, and whose answers no client sees.

    Attributes:
        version: the version, by number or label.
        sample: share of the requests that are copied.
        tolerance: most that two numbers of an answer may differ, as a share of the larger one or,
            near zero, as a difference, and still count as equal.
    """

    version: VersionName
    sample: Annotated[Number, Field(gt=0, le=1)] = 0.1
    tolerance: Annotated[Number, Field(ge=0, le=1)] = 1e-3


class Canary(Section):
    """A version that gets more and more of the requests, and none once it is found to be worse.

    Attributes:
        version: the version, by number or label; `latest` is whichever is the newest.
        steps: percent of the requests that the version gets, one step after the other.
        every: time that a step lasts at least, as `10m`; a number is seconds.
        max_error_rate: share of failed requests from which on a version that fails more often than
            the stable one is taken back.
        max_latency_ratio: times the stable version's median latency that the median latency of the
            canary may have; None compares no latencies.
        min_requests: answers of the canary that a step needs at least.
    """

    version: VersionName
    steps: Annotated[
        tuple[Percent, ...], Field(min_length=1, max_length=100), AfterValidator(_rising)
    ] = (1.0, 5.0, 25.0, 100.0)
    every: Duration = 600.0
    max_error_rate: Annotated[Number, Field(ge=0, lt=1)] = 0.01
    max_latency_ratio: Annotated[Number, Field(ge=1, le=1000)] | None = None
    min_requests: Count = 100


class TrafficSettings(Section):
    """Which versions of a model serve, and who gets which: settings of a model.

    Attributes:
        versions: which versions of the model serve: `all`, `latest`, `{latest: 2}`, or a list of
            numbers; besides them every version that the settings below name.
        labels: from a label, such as `stable`, to the number of the version that it stands for.
        traffic: from a version, by number or label, to its share of the requests that name no
            version; the shares are compared with each other, whatever their sum.
        shadow: a version that gets copies of requests, and whose answers no client sees.
        canary: a version that gets more and more of the requests, and is taken back by itself.
    """

    versions: Versions = "latest"
    labels: dict[Label, VersionNumber] = Field(default_factory=dict)
    traffic: dict[VersionName, Weight] = Field(default_factory=dict)
    shadow: Shadow | None = None
    canary: Canary | None = None

    def number_of(self, name: str) -> str:
        """Return the number of the version that `name` means: a number already, or a label."""
        return str(self.labels[name]) if name in self.labels else name

    @property
    def named(self) -> set[str]:
        """The numbers of the versions that the settings name besides `versions`."""
        names = {*map(str, self.labels.values()), *map(self.number_of, self._names())}
        return names - {LATEST}

    @property
    def shadowed(self) -> str:
        """The number of the version that gets copies of requests; empty without one."""
        return "" if self.shadow is None else self.number_of(self.shadow.version)

    @property
    def on_trial(self) -> set[str]:
        """The numbers of versions that get copies of requests, or are tried as canary."""
        tried = (self.shadow, self.canary)
        return {self.number_of(each.version) for each in tried if each is not None} - {LATEST}

    def _names(self) -> list[str]:
        tried = [each.version for each in (self.shadow, self.canary) if each is not None]
        return [*self.traffic, *tried]

    def contradiction(self) -> tuple[str, str, object] | None:
        """Return the setting that contradicts another, what was expected of it, and what came."""
        if self.traffic and self.canary is not None:
            return "canary", "none beside `traffic`, since both divide the requests", "both"
        if self.traffic and not sum(self.traffic.values()):
            return "traffic", "a share above 0 for one version at least", self.traffic
        places: Mapping[str, list[str]] = {
            "traffic": list(self.traffic),
            "shadow": [] if self.shadow is None else [self.shadow.version],
            "canary": [] if self.canary is None else [self.canary.version],
        }
        for place, names in places.items():
            for name in names:
                is_latest = place == "canary" and name == LATEST
                if not (name.isdecimal() or name in self.labels or is_latest):
                    known = ", ".join(self.labels) or "none is set"
                    return place, f"the number of a version, or one of `labels` ({known})", name
        return None

"""Which versions of a model serve, and how its requests are divided among them.

A version is named by its number or by a label. A setting that names a version also has that version
loaded, whatever `versions` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from batcher.config.reading import Integer, Number
from batcher.config.values import Count, Section

LATEST = "latest"
"""The word for the newest version; no label may be called so."""


class Latest(Section):
    """The newest versions of a model.

    Attributes:
        latest: how many of them.
    """

    latest: Count


VersionNumber = Annotated[Integer, Field(ge=0, le=1 << 63)]


def _versions(value: Any) -> Any:
    if value in ("all", LATEST) or isinstance(value, dict | list | tuple | Latest):
        return value
    raise ValueError("all, latest, {latest: 2}, or a list of numbers such as [3, 5]")


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


class TrafficSettings(Section):
    """Which versions of a model serve, and who gets which: settings of a model.

    Attributes:
        versions: which versions of the model serve: `all`, `latest`, `{latest: 2}`, or a list of
            numbers; besides them every version that the settings below name.
        labels: from a label, such as `stable`, to the number of the version that it stands for.
        traffic: from a version, by number or label, to its share of the requests that name no
            version; the shares are compared with each other, whatever their sum.
        shadow: a version that gets copies of requests, and whose answers no client sees.
    """

    versions: Versions = "latest"
    labels: dict[Label, VersionNumber] = Field(default_factory=dict)
    traffic: dict[VersionName, Weight] = Field(default_factory=dict)
    shadow: Shadow | None = None

    def number_of(self, name: str) -> str:
        """Return the number of the version that `name` means: a number already, or a label."""
        return str(self.labels[name]) if name in self.labels else name

    @property
    def named(self) -> set[str]:
        """The numbers of the versions that the settings name besides `versions`."""
        return {*map(str, self.labels.values()), *map(self.number_of, self.traffic), *self.on_trial}

    @property
    def on_trial(self) -> set[str]:
        """The numbers of versions whose answers no client needs."""
        return set() if self.shadow is None else {self.number_of(self.shadow.version)}

    def contradiction(self) -> tuple[str, str, object] | None:
        """Return the setting that contradicts another, what was expected of it, and what came."""
        if self.traffic and not sum(self.traffic.values()):
            return "traffic", "a share above 0 for one version at least", self.traffic
        places: Mapping[str, list[str]] = {
            "traffic": list(self.traffic),
            "shadow": [] if self.shadow is None else [self.shadow.version],
        }
        for place, names in places.items():
            for name in names:
                if not (name.isdecimal() or name in self.labels):
                    known = ", ".join(self.labels) or "none is set"
                    return place, f"the number of a version, or one of `labels` ({known})", name
        return None

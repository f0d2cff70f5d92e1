"""Which versions of a model serve, and how its requests are divided among them.

A version is named by its number or by a label. A setting that names a version also has that version
loaded, whatever `versions` says.
"""

from __future__ import annotations

import re
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


class TrafficSettings(Section):
    """Which versions of a model serve, and who gets which: settings of a model.

    Attributes:
        versions: which versions of the model serve: `all`, `latest`, `{latest: 2}`, or a list of
            numbers; besides them every version that the settings below name.
        labels: from a label, such as `stable`, to the number of the version that it stands for.
        traffic: from a version, by number or label, to its share of the requests that name no
            version; the shares are compared with each other, whatever their sum.
    """

    versions: Versions = "latest"
    labels: dict[Label, VersionNumber] = Field(default_factory=dict)
    traffic: dict[VersionName, Weight] = Field(default_factory=dict)

    def number_of(self, name: str) -> str:
        """Return the number of the version that `name` means: a number already, or a label."""
        return str(self.labels[name]) if name in self.labels else name

    @property
    def named(self) -> set[str]:
        """The numbers of the versions that the settings name besides `versions`."""
        return {*map(str, self.labels.values()), *map(self.number_of, self.traffic)}

    def contradiction(self) -> tuple[str, str, object] | None:
        """Return the setting that contradicts another, what was expected of it, and what came."""
        if self.traffic and not sum(self.traffic.values()):
            return "traffic", "a share above 0 for one version at least", self.traffic
        for name in self.traffic:
            if not (name.isdecimal() or name in self.labels):
                known = ", ".join(self.labels) or "none is set"
                return "traffic", f"the number of a version, or one of `labels` ({known})", name
        return None

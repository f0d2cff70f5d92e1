"""Which versions of a model serve, and the labels that stand for versions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from batcher.config.reading import Integer
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


class TrafficSettings(Section):
    """Which versions of a model serve, and who gets which: settings of a model.

    Attributes:
        versions: which versions of the model serve: `all`, `latest`, `{latest: 2}`, or a list of
            numbers; besides them every version that has a label.
        labels: from a label, such as `stable`, to the number of the version that it stands for.
    """

    versions: Versions = "latest"
    labels: dict[Label, VersionNumber] = Field(default_factory=dict)

    @property
    def named(self) -> set[str]:
        """The numbers of the versions that the settings name besides `versions`."""
        return set(map(str, self.labels.values()))

"""What was found of models, in folders and in stores, before anything of it is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from twisted.logger import Logger

from batcher.config.single_file import SingleFile
from batcher.serving.repository.stores.stores import Place, StoreListing
from batcher.serving.repository.stores.versions import Key, StoredVersion

_log = Logger()

Reasons = dict[Key, str]
"""Why something is left out, by name and version."""

Known = Mapping[Place, StoreListing]
"""What is known of stores."""

MAX_LEFT_OUT = 50
"""Folders that clients read the reasons of: a balancer asks every second, and a person mends the
first ones first. The log has all.
"""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One version of a model, found but not read.

    Attributes:
        name: the model's name.
        version: its version, a decimal number as text without leading zeros.
        folder: where its `model.yaml` stands; of a single file, where that is.
        single: the file, for a model of one file without a `model.yaml`.
        stored: the version in its store, for one of a store; `folder` is then in the cache.
    """

    name: str
    version: str
    folder: Path
    single: SingleFile | None = None
    stored: StoredVersion | None = None


class Listing(NamedTuple):
    """What was found in the repository and at the paths of models.

    Attributes:
        folders: every version of every model that can be read.
        unread: why something cannot be read, by name and version of the model; the version is empty
            where no version of the model can be read.
        misplaced: why something that can be read is no model, by the same keys.
        absent: versions that settings name and that are not there, each in words.
    """

    folders: list[ModelFolder]
    unread: dict[Key, str]
    misplaced: dict[Key, str]
    absent: Sequence[str] = ()

    @property
    def left_out(self) -> dict[str, str]:
        """Why something is not served, by its path in the repository; for clients too.

        At most MAX_LEFT_OUT reasons.
        """
        found = {titled(key): reason for key, reason in self.misplaced.items()}
        found.update({titled(key): "it cannot be read" for key in self.unread})
        return dict(list(found.items())[:MAX_LEFT_OUT])

    def warn(self) -> None:
        """Log everything that is left out."""
        for warning in self.warnings():
            _log.warn("{warning}", warning=warning)

    def warnings(self, up: Collection[Key] = ()) -> list[str]:
        """Return a line for the log for everything that is left out or absent.

        What is `up`, by name and version, serves on where it cannot be read now.
        """
        names = {(name, "") for name, _ in up}
        left_out = [
            f"{titled(key)} {_AS_IT_IS if key in up or key in names else _LEFT_OUT}: {reason}"
            for key, reason in self.unread.items()
        ]
        misplaced = [
            f"{titled(key)} {_LEFT_OUT}: {why}"
            for key, why in self.misplaced.items()
            if key not in self.unread  # its line says the same
        ]
        return [*self.absent, *left_out, *misplaced]


_LEFT_OUT = "in the repository is left out"
_AS_IT_IS = "is left as it is, and serves on"


def titled(key: Key) -> str:
    """Return name and version as text that every log, answer and terminal can hold.

    Who may write into a bucket chooses its names, which may hold what a terminal obeys.
    """
    text = "/".join(filter(None, key))
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def reason_for(name: str, reasons: Mapping[Key, str]) -> str:
    """Return why the model `name`, or a version, is among the `reasons`; empty if it is not."""
    return "; ".join(reason for (model, _), reason in reasons.items() if model == name)

"""Every version of every model that a server knows, by name and version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import chain, islice

from batcher.core.error_text import brief
from batcher.errors import ModelNotReady, UnknownModel
from batcher.serving.model_version import ModelVersion

MAX_NAMES = 10
"""Names of models that an error lists: nobody reads more of them."""

MAX_COMPARED = 200
"""Names, and characters of a name, that are looked through for one that was meant: a comparison
takes some 10 µs of the loop, and clients decide how often.
"""


NumberOf = Callable[[str, str], str]
"""Returns the number of the version that a label of a model stands for; empty without the label."""


def no_labels(name: str, label: str) -> str:
    """Return the empty text: no model has labels."""
    return ""


class VersionTable:
    """Finds what serves a name. Reactor thread.

    Attributes:
        number_of: knows the labels of models.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.number_of: NumberOf = no_labels
        self._models: dict[str, dict[str, ModelVersion]] = {}

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""
        return chain.from_iterable(versions.values() for versions in self._models.values())

    def get(self, name: str, version: str) -> ModelVersion | None:
        """Return that version, None if it is not known."""
        return self._models.get(name, {}).get(version)

    def named(self, name: str) -> list[ModelVersion]:
        """Return every version of the model `name`, in whatever state."""
        return list(self._models.get(name, {}).values())

    def put(self, version: ModelVersion) -> None:
        """Know `version`, in place of whatever had its name and version."""
        self._models.setdefault(version.spec.name, {})[version.spec.version] = version

    def remove(self, version: ModelVersion) -> None:
        """Know `version` no more; with its last version a model's name is unknown."""
        versions = self._models[version.spec.name]
        del versions[version.spec.version]
        if not versions:
            del self._models[version.spec.name]

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return that version of a model, by number or label.

        Without `version` it is the newest that is ready. Raises UnknownModel; ModelNotReady: the
        label stands for a version that is not here.
        """
        versions = self._models.get(name)
        if not versions:
            raise UnknownModel(
                f"model: expected one of {self._names()}; got {brief(name, 200)}{self._meant(name)}"
            )
        if version:
            found = versions.get(version) or versions.get(version.lstrip("0") or "0")
            return found if found is not None else self._labelled(name, version)
        newest = sorted(versions.values(), key=lambda each: int(each.spec.version), reverse=True)
        return next((each for each in newest if each.accepts), newest[0])

    def _labelled(self, name: str, label: str) -> ModelVersion:
        """Return the version that `label` stands for; raises as `find` does."""
        versions, number = self._models[name], self.number_of(name, label)
        if not number:
            raise UnknownModel(
                f"model {name!r}: expected version {' or '.join(versions)}, or a label; got "
                f"{brief(label, 200)}"
            )
        if number not in versions:
            raise ModelNotReady(
                f"model {name!r}: label {label!r} stands for version {number}, which is not "
                "loaded yet",
                retry_after=5,
            )
        return versions[number]

    def ready_versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""
        versions = self._models.get(name, {}).values()
        return sorted((each.spec.version for each in versions if each.accepts), key=int)

    def successor(self, version: ModelVersion) -> ModelVersion:
        """Return what takes requests in place of `version`; `version` itself if nothing does.

        That is the version of the same name and number, if it takes requests of the same
        specification.
        """
        found = self.get(*version.key)
        takes_over = found is not None and found.accepts and found.spec == version.spec
        return found if found is not None and takes_over else version

    def only_name(self) -> str:
        """Return the name of the only model there is.

        Raises UnknownModel if there are none or several.
        """
        if len(self._models) != 1:
            first = next(chain(self._ready(), self._models), "")
            # A client of a cloud cannot choose another path; who runs the server can.
            advice = (
                f": ask for one by /models/{first}/predict, or have the server serve one alone, by "
                f"`load_at_start: [{first}]`"
            )
            raise UnknownModel(
                "this route: expected a server with one model; this one has "
                f"{self._names()}{advice if first else ''}"
            )
        return next(iter(self._models))

    def _ready(self) -> list[str]:
        """Return the names of the models that have a version which takes requests."""
        return [
            name
            for name, versions in self._models.items()
            if any(version.accepts for version in versions.values())
        ]

    def _names(self) -> str:
        """Return names of models for an error, those that take requests first."""
        ready = self._ready()
        others = sorted(self._models.keys() - set(ready))
        if not ready:
            return _listed(others) or "none"
        unready = f" (not ready: {_listed(others)})" if others else ""
        return f"{_listed(ready)}{unready}"

    def _meant(self, name: str) -> str:
        """Return the question whether a model was meant whose name is like `name`."""
        if len(name) > MAX_COMPARED:
            return ""
        close = get_close_matches(name, list(islice(self._models, MAX_COMPARED)), 1, 0.6)
        return f"; did you mean {close[0]!r}?" if close else ""


def _listed(names: list[str]) -> str:
    """Return the first of `names`, and how many there are besides."""
    shown = ", ".join(map(repr, names[:MAX_NAMES]))
    more = len(names) - MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown

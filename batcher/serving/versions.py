"""Every version of every model that a server knows, by name and version."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from batcher.core.error_text import brief
from batcher.errors import UnknownModel
from batcher.serving.model_version import ModelVersion


class VersionTable:
    """Finds what serves a name. Reactor thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._models: dict[str, dict[str, ModelVersion]] = {}

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""
        return chain.from_iterable(versions.values() for versions in self._models.values())

    def get(self, name: str, version: str) -> ModelVersion | None:
        """Return that version, None if it is not known."""
        return self._models.get(name, {}).get(version)

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
        """Return that version of a model; without `version` the newest that is ready.

        Raises UnknownModel.
        """
        versions = self._models.get(name)
        if not versions:
            raise UnknownModel(f"model: expected one of {self._names()}; got {brief(name, 200)}")
        if version:
            found = versions.get(version) or versions.get(version.lstrip("0") or "0")
            if found is None:
                raise UnknownModel(
                    f"model {name!r}: expected version {' or '.join(versions)}; got "
                    f"{brief(version, 200)}"
                )
            return found
        newest = sorted(versions.values(), key=lambda each: int(each.spec.version), reverse=True)
        return next((each for each in newest if each.accepts), newest[0])

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
            first = next(iter(self._models), "")
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

    def _names(self) -> str:
        return ", ".join(map(repr, self._models)) or "none"

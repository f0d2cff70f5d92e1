"""Every version of every model that a server knows, by name and version."""

from __future__ import annotations

from collections.abc import Iterator

from batcher.errors import UnknownModel
from batcher.serving.model_version import ModelVersion


class VersionTable:
    """Finds what serves a name. Reactor thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._models: dict[str, dict[str, ModelVersion]] = {}

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over every version of every model."""
        return (served for versions in self._models.values() for served in versions.values())

    def get(self, name: str, version: str) -> ModelVersion | None:
        """Return that version, None if it is not known."""
        return self._models.get(name, {}).get(version)

    def put(self, served: ModelVersion) -> None:
        """Know `served`, in place of whatever had its name and version."""
        self._models.setdefault(served.spec.name, {})[served.spec.version] = served

    def remove(self, served: ModelVersion) -> None:
        """Know `served` no more; with its last version a model's name is unknown."""
        versions = self._models[served.spec.name]
        del versions[served.spec.version]
        if not versions:
            del self._models[served.spec.name]

    def find(self, name: str, version: str = "") -> ModelVersion:
        """Return that version of a model; without `version` the newest that is ready.

        Raises UnknownModel.
        """
        versions = self._models.get(name)
        if not versions:
            raise UnknownModel(f"model: expected one of {self._names()}; got {name!r:.200}")
        if version:
            found = versions.get(version) or versions.get(version.lstrip("0") or "0")
            if found is None:
                raise UnknownModel(
                    f"model {name!r}: expected version {' or '.join(versions)}; got "
                    f"{version!r:.200}"
                )
            return found
        newest = sorted(
            versions.values(), key=lambda served: int(served.spec.version), reverse=True
        )
        return next((served for served in newest if served.accepts), newest[0])

    def ready_versions(self, name: str) -> list[str]:
        """Return the versions of a model that can answer, ascending."""
        ready = [
            served.spec.version for served in self._models.get(name, {}).values() if served.accepts
        ]
        return sorted(ready, key=int)

    def successor(self, served: ModelVersion) -> ModelVersion:
        """Return what takes requests in place of `served`, if it is such a model and takes any.

        Else `served`.
        """
        found = self.get(served.spec.name, served.spec.version)
        return (
            found if found is not None and found.accepts and found.spec == served.spec else served
        )

    def only_name(self) -> str:
        """Return the name of the only model there is.

        Raises UnknownModel if there are none or several.
        """
        if len(self._models) != 1:
            expected = "a server with one model; this one has"
            raise UnknownModel(
                f"/predict: expected {expected} {self._names()}: name one in the path"
            )
        return next(iter(self._models))

    def _names(self) -> str:
        return ", ".join(map(repr, self._models)) or "none"

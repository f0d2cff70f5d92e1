"""Which version of which model a request means."""

from __future__ import annotations

from batcher.errors import UnknownModel
from batcher.served import ServedModel

Models = dict[str, dict[str, ServedModel]]
"""Versions by number, by the name of their model."""


def find_version(models: Models, name: str, version: str) -> ServedModel:
    """Return the version of a model that answers a request; without `version` the newest that is ready. Raises UnknownModel."""
    versions = models.get(name)
    if not versions:
        raise UnknownModel(f"model: expected one of {_names(models)}; got {name!r:.200}")
    if version:
        found = versions.get(version) or versions.get(version.lstrip("0") or "0")
        if found is None:
            raise UnknownModel(f"model {name!r}: expected version {' or '.join(versions)}; got {version!r:.200}")
        return found
    newest = sorted(versions.values(), key=lambda served: int(served.spec.version), reverse=True)
    return next((served for served in newest if served.accepts), newest[0])


def only_name(models: Models) -> str:
    """Return the name of the only model there is. Raises UnknownModel if there are none or several."""
    if len(models) != 1:
        raise UnknownModel(f"/predict: expected a server with one model; this one has {_names(models)}: name one in the path")
    return next(iter(models))


def _names(models: Models) -> str:
    return ", ".join(map(repr, models)) or "none"

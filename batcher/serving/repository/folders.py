"""The models on disk: a folder a model, and in that folder one for each version, a number.

The functions here read the disk, and so does `source.py`. The server calls them on a thread of
their own (`disk.py`), since a mounted disk may take a millisecond for each look; commands call them
as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batcher.config.settings import ServerSettings
from batcher.core.names import name_fault
from batcher.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One version of a model, found but not read.

    Attributes:
        name: the model's name.
        version: its version, a decimal number as text without leading zeros.
        folder: where its `model.yaml` stands.
    """

    name: str
    version: str
    folder: Path


def find_models(settings: ServerSettings, base: Path) -> list[ModelFolder]:
    """List every version of every model, in the repository or at a path of its own.

    Args:
        settings: says where to look.
        base: the folder that relative paths start from, usually that of the configuration file.

    Raises:
        ConfigError: a folder is missing or holds no version, or a setting names a model that is
            nowhere.
    """
    folders = _folders_of_repository(settings, base)
    for name, own in settings.models.items():
        _check_name(name, f"{settings.origin('models', name)}: models")
        if own.path is not None:
            folders[name] = base / own.path
        elif name not in folders:
            known = ", ".join(folders) or "none"
            place = settings.origin("models", name)
            raise ConfigError(
                f"{place}: models.{name}: no such model in the repository, which has: {known}"
            )
    places = {name: f"{settings.origin('models', name)}: models.{name}" for name in folders}
    return [each for name in folders for each in _model_folders(name, folders[name], places[name])]


def _folders_of_repository(settings: ServerSettings, base: Path) -> dict[str, Path]:
    """Return the folder of each model in the repository, by name. Raises ConfigError."""
    repository = base / settings.model_repository
    if repository.is_dir():
        models = {entry.name: entry for entry in sorted(repository.iterdir()) if _versions(entry)}
        for name in models:
            _check_name(name, f"{repository}")
        return models
    if "model_repository" in settings.model_fields_set:
        place = settings.origin("model_repository")
        raise ConfigError(
            f"{place}: model_repository: expected a folder; there is no "
            f"{settings.model_repository!r}"
        )
    return {}


def _check_name(name: str, place: str) -> None:
    if fault := name_fault(name):
        raise ConfigError(
            f"{place}: expected names of models that fit into a path; got {name!r}: {fault}"
        )


def find_versions(folder: Path, settings: ServerSettings, base: Path) -> list[ModelFolder]:
    """List the versions of the model in `folder`.

    A `folder` that holds a `model.yaml` itself is one version. The model has the name by which
    `settings` give that path, else the name of its folder.

    Args:
        folder: of a model or of a version.
        settings: may name the model's path.
        base: the folder that relative paths in `settings` start from.

    Raises:
        ConfigError: there is neither a `model.yaml` nor a version folder in it.
    """
    folder = folder.resolve()
    alone = (folder / "model.yaml").is_file()
    model = folder.parent if alone and folder.name.isdecimal() else folder
    named = {(base / own.path).resolve(): name for name, own in settings.models.items() if own.path}
    name = named.get(model, model.name)
    if not alone:
        return _model_folders(name, folder, str(folder))
    return [ModelFolder(name, str(int(folder.name)) if folder.name.isdecimal() else "1", folder)]


def _model_folders(name: str, folder: Path, place: str) -> list[ModelFolder]:
    versions = _versions(folder)
    if not versions:
        raise ConfigError(
            f"{place}: expected version folders (1, 2, …) with a model.yaml in {folder.name!r}; "
            "got none"
        )
    numbers = [int(version.name) for version in versions]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"{place}: expected one folder a version; got "
            f"{', '.join(version.name for version in versions)}"
        )
    return [ModelFolder(name, str(int(version.name)), version) for version in versions]


def _versions(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [
        entry
        for entry in folder.iterdir()
        if entry.name.isdecimal() and (entry / "model.yaml").is_file()
    ]
    return sorted(found, key=lambda entry: int(entry.name))

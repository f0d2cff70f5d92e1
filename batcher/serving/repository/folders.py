"""The models on disk: a folder for each model, in it a folder for each version, named by a decimal number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from batcher.config.settings import ServerSettings
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
    """List every version of every model, those of the repository and those that name a path of their own.

    Args:
        settings: says where to look.
        base: the folder that relative paths start from, usually that of the configuration file.

    Raises:
        ConfigError: a folder is missing or holds no version, or a setting names a model that is
            nowhere.
    """
    repository = base / settings.model_repository
    folders = {}
    if repository.is_dir():
        folders = {entry.name: entry for entry in sorted(repository.iterdir()) if _versions(entry)}
    elif "model_repository" in settings.model_fields_set:
        place = settings.origin("model_repository")
        raise ConfigError(
            f"{place}: model_repository: expected a folder; there is no "
            f"{settings.model_repository!r}"
        )
    for name, own in settings.models.items():
        if own.path is not None:
            folders[name] = base / own.path
        elif name not in folders:
            known = ", ".join(folders) or "none"
            place = settings.origin("models", name)
            raise ConfigError(
                f"{place}: models.{name}: no such model in the repository, which has: {known}"
            )
    return [
        found
        for name, folder in folders.items()
        for found in _model_folders(
            name, folder, f"{settings.origin('models', name)}: models.{name}"
        )
    ]


def find_versions(folder: Path, settings: ServerSettings, base: Path) -> list[ModelFolder]:
    """List the versions of the model in `folder`, or the one version if `folder` holds a `model.yaml` itself.

    The model is called what `settings` call the one of that path, else as its folder is called.

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
    name = next(
        (
            key
            for key, own in settings.models.items()
            if own.path and (base / own.path).resolve() == model
        ),
        model.name,
    )
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

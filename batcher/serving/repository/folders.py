"""The models on disk: a folder a model, and in that folder one for each version, a number.

What cannot be read is left out and named: a repository may be a volume with a `lost+found`, or hold
a link that leads nowhere. Only a model that a setting names must be readable.

The functions here read the disk, and so does `source.py`. The server calls them on a thread of
their own (`disk.py`), since a mounted disk may take a millisecond for each look; commands call them
as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from batcher.config.settings import ServerSettings
from batcher.core.names import name_fault
from batcher.errors import ConfigError

Key = tuple[str, str]
"""Name and version."""


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


class Listing(NamedTuple):
    """What was found in the repository and at the paths of models.

    Attributes:
        folders: every version of every model that can be read.
        unread: why something cannot be read, by name and version of the model; the version is empty
            where no version of the model can be read.
    """

    folders: list[ModelFolder]
    unread: dict[Key, str]

    def warnings(self) -> list[str]:
        """Return a line for the log for everything that cannot be read."""
        return [
            f"{name}{f'/{version}' * bool(version)} in the repository is left out: {reason}"
            for (name, version), reason in self.unread.items()
        ]


def find_models(settings: ServerSettings, base: Path) -> Listing:
    """List every version of every model, in the repository or at a path of its own.

    Args:
        settings: says where to look.
        base: the folder that relative paths start from, usually that of the configuration file.

    Raises:
        ConfigError: a folder is missing or holds no version, or a setting names a model that is
            nowhere or cannot be read.
    """
    unread: dict[Key, str] = {}
    found = _models_of_repository(settings, base, unread)
    for name, own in settings.models.items():
        _check_name(name, f"{settings.origin('models', name)}: models")
        place = f"{settings.origin('models', name)}: models.{name}"
        if own.path is not None:
            found[name] = _model_folders(name, base / own.path, place)
        elif name not in found:
            known = ", ".join(found) or "none"
            missing = f"no such model in the repository, which has: {known}"
            unreadable = f"expected a model that can be read; {unread_reason(name, unread)}"
            fault = unreadable if unread_reason(name, unread) else missing
            raise ConfigError(f"{place}: {fault}")
    return Listing([folder for folders in found.values() for folder in folders], unread)


def unread_reason(name: str, unread: Mapping[Key, str]) -> str:
    """Return why the model `name`, or a version, is among what is `unread`; empty if not."""
    return "; ".join(reason for (model, _), reason in unread.items() if model == name)


def _models_of_repository(
    settings: ServerSettings, base: Path, unread: dict[Key, str]
) -> dict[str, list[ModelFolder]]:
    """Return the versions of each model in the repository, by name; note what is `unread`.

    Raises ConfigError.
    """
    found = {}
    for entry in _entries_of_repository(settings, base):
        faults: dict[str, str] = {}
        versions = _versions(entry, faults)
        unread.update({(entry.name, version): reason for version, reason in faults.items()})
        if versions:
            _check_name(entry.name, f"{entry.parent}")
            place = f"{settings.origin('models', entry.name)}: models.{entry.name}"
            found[entry.name] = _folders_of(entry.name, versions, place)
    return found


def _entries_of_repository(settings: ServerSettings, base: Path) -> list[Path]:
    """Return what lies in the repository. Raises ConfigError."""
    repository = base / settings.model_repository
    try:
        if repository.is_dir():
            return sorted(repository.iterdir())
    except OSError as err:
        place = settings.origin("model_repository")
        raise ConfigError(
            f"{place}: model_repository: expected a folder that can be read: {err}"
        ) from err
    if "model_repository" in settings.model_fields_set:
        place = settings.origin("model_repository")
        raise ConfigError(
            f"{place}: model_repository: expected a folder; there is no "
            f"{settings.model_repository!r}"
        )
    return []


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
    """Return the versions in `folder`, of a model that is named at `place`. Raises ConfigError."""
    faults: dict[str, str] = {}
    versions = _versions(folder, faults)
    if faults:
        raise ConfigError(
            f"{place}: expected folders that can be read; {'; '.join(faults.values())}"
        )
    if not versions:
        raise ConfigError(
            f"{place}: expected version folders (1, 2, …) with a model.yaml in {folder.name!r}; "
            "got none"
        )
    return _folders_of(name, versions, place)


def _folders_of(name: str, versions: list[Path], place: str) -> list[ModelFolder]:
    """Return `versions` of the model `name`. Raises ConfigError: two have one number."""
    numbers = [int(version.name) for version in versions]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"{place}: expected one folder a version; got "
            f"{', '.join(version.name for version in versions)}"
        )
    return [ModelFolder(name, str(int(version.name)), version) for version in versions]


def _versions(folder: Path, faults: dict[str, str]) -> list[Path]:
    """Return the version folders in `folder`, by their numbers.

    Why one cannot be read goes into `faults` by its name, and by the empty name for `folder`.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as err:
        _note_unread(folder, err, faults, "")
        return []
    found = [entry for entry in entries if entry.name.isdecimal() and _is_version(entry, faults)]
    return sorted(found, key=lambda entry: int(entry.name))


def _is_version(folder: Path, faults: dict[str, str]) -> bool:
    """Return whether `folder` can be read and holds a `model.yaml`."""
    try:
        return "model.yaml" in os.listdir(folder) and (folder / "model.yaml").is_file()
    except OSError as err:
        _note_unread(folder, err, faults, str(int(folder.name)))
        return False


def _note_unread(folder: Path, error: OSError, faults: dict[str, str], name: str) -> None:
    """Note in `faults` why `folder` cannot be read; not if it is a file, or has just gone."""
    if isinstance(error, FileNotFoundError) and folder.is_symlink():
        faults[name] = f"{folder} is a link that leads nowhere"
    elif not isinstance(error, FileNotFoundError | NotADirectoryError):
        faults[name] = f"{folder}: {error.strerror or error}"

"""The folders of versions in the folder of a model; what cannot be read is named and left out.

Every function here but `model_folders` reads the disk.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from batcher.config.model_file import is_defined
from batcher.core.names import is_number
from batcher.errors import ConfigError
from batcher.serving.repository.listing import ModelFolder


class Version(NamedTuple):
    """The folder of a version, and its number."""

    number: int
    folder: Path


def model_folders(name: str, versions: list[Version], place: str) -> list[ModelFolder]:
    """Return `versions` of the model `name`. Raises ConfigError: two have one number."""
    if len({version.number for version in versions}) < len(versions):
        raise ConfigError(
            f"{place}: expected one folder a version; got "
            f"{', '.join(version.folder.name for version in versions)}"
        )
    return [ModelFolder(name, str(version.number), version.folder) for version in versions]


def version_folders(folder: Path, faults: dict[str, str]) -> list[Version]:
    """Return the versions in `folder`, by their numbers; `folder` itself where it is version 1.

    Why one cannot be read goes into `faults` by its name, and by the empty name for `folder`.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as err:
        _note_unread(folder, err, faults, "")
        return []
    found = [
        Version(int(entry.name), entry)
        for entry in entries
        if is_number(entry.name) and _is_version(entry, faults)
    ]
    if found or faults or not _is_model(folder, faults):
        return sorted(found)
    # The path of a model may be the folder of one of its versions.
    return [Version(int(folder.name) if is_number(folder.name) else 1, folder)]


def _is_model(folder: Path, faults: dict[str, str]) -> bool:
    """Return whether `folder` holds a `model.yaml` itself, or something in its place."""
    try:
        return is_defined(folder)
    except OSError as err:
        _note_unread(folder, err, faults, "")
        return False


def numbered_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that are named by a number, by their numbers."""
    with suppress(OSError):
        found = [each for each in folder.iterdir() if is_number(each.name) and each.is_dir()]
        return sorted(found, key=lambda each: int(each.name))
    return []


def _is_version(folder: Path, faults: dict[str, str]) -> bool:
    """Return whether `folder` can be read, and holds a `model.yaml` or something in its place."""
    try:
        names = os.listdir(folder)
        return bool(names) and is_defined(folder)
    except OSError as err:
        _note_unread(folder, err, faults, str(int(folder.name)))
        return False


def _note_unread(folder: Path, error: OSError, faults: dict[str, str], name: str) -> None:
    """Note in `faults` why `folder` cannot be read; not if it is a file, or has just gone."""
    if isinstance(error, FileNotFoundError) and folder.is_symlink():
        faults[name] = f"{folder} is a link that leads nowhere"
    elif not isinstance(error, FileNotFoundError | NotADirectoryError):
        faults[name] = f"{folder}: {error.strerror or error}"

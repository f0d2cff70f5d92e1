"""What a version of a model is loaded from: its files, its settings, and what a client overrode.

Two sources that are equal give the same model. So a source tells whether a version that serves must
be loaded anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings, share_threads
from batcher.config.traffic import TrafficSettings
from batcher.models.file_facts import FileFacts, facts_of
from batcher.models.version_files import version_files
from batcher.serving.repository.folders import define, settings_for
from batcher.serving.repository.listing import ModelFolder


class VersionSource(NamedTuple):
    """What a version is loaded from.

    Attributes:
        folder: the version's own folder.
        files: what is known of each file in the folder; none of a version of a store.
        settings: those of the version's model, before models share the cores.
        overrides: settings of the model, by name, that a client wanted otherwise.
    """

    folder: ModelFolder
    files: tuple[FileFacts, ...]
    settings: ModelSettings
    overrides: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.folder.name, self.folder.version

    def define(self) -> ModelDefinition:
        """Return the version's definition as its `model.yaml` has it now.

        Raises ConfigError. Disk thread.
        """
        return define(self.folder, self.settings.trusted)

    @property
    def instances(self) -> int:
        """How many instances of the version share the cores with others."""
        return self.settings.instances

    def settings_among(self, instances: int) -> ModelSettings:
        """Return the settings that the version runs with if `instances` share the cores."""
        return share_threads(self.settings.model_copy(update=self.overrides), instances)


def source_of(
    folder: ModelFolder,
    settings: ServerSettings,
    overrides: dict[str, Any],
    known: VersionSource | None = None,
) -> VersionSource:
    """Return what `folder` is loaded from now; `known` is what it was loaded from last.

    Raises ConfigError: the model's settings contradict each other. Disk thread.
    """
    # What comes from a store has a folder of its own for each content: the folder says it all.
    paths = paths_of(folder) if folder.stored is None else ()
    files = _files(paths, known.files if known is not None else ())
    # Which versions serve, and who gets which requests, changes nothing for one that serves.
    own = settings_for(folder, settings).model_copy(update=TrafficSettings().model_dump())
    return VersionSource(folder, files, own, overrides)


def _files(paths: Iterable[Path], known: tuple[FileFacts, ...]) -> tuple[FileFacts, ...]:
    """Return what is known of every file of a version now; `known` was known before."""
    before = {facts.path: facts for facts in known}
    found = []
    for path in sorted(paths):
        with suppress(OSError):  # it has just been removed; or else the load will say why
            if path.is_file():
                found.append(facts_of(path, before.get(str(path))))
    return tuple(found)


def paths_of(folder: ModelFolder) -> Iterable[Path]:
    """Return the paths of all files of a version. Disk thread."""
    single = folder.single
    if single is None:
        return version_files(folder.folder)
    return version_files(folder.folder, single.file, single.sample)

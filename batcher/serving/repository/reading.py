"""What is read from disk before models change: at start, at a load, and at a reload.

Every function here reads the disk and runs on the disk's thread. What the loop knows at that time
is handed over as a value, and what was read comes back as a value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Progress
from batcher.serving.repository.folders import ModelFolder, find_models
from batcher.serving.repository.source import VersionSource, source_of
from batcher.workers.thread import ModelLoader

Key = tuple[str, str]
"""Name and version."""


class FoundVersion(NamedTuple):
    """A version as it stands on disk.

    Attributes:
        source: what it is loaded from.
        definition: what its `model.yaml` says; None if the file is wrong, or was not read since
            nothing has changed.
        fault: what is wrong with the file; empty if nothing is.
    """

    source: VersionSource
    definition: ModelDefinition | None = None
    fault: str = ""

    @property
    def is_read(self) -> bool:
        """Whether `model.yaml` was read."""
        return self.definition is not None or bool(self.fault)

    def or_failure(
        self, instances: int
    ) -> tuple[ModelDefinition, ModelSettings, ModelLoader | None]:
        """Return what to add to a server in which `instances` share the cores.

        A version whose definition is wrong fails to load, and keeps the reason visible.
        """
        settings = self.source.settings_among(instances)
        if self.definition is not None:
            return self.definition, settings, None
        (name, version), folder = self.source.key, self.source.folder.folder
        fault = self.fault

        def load(progress: Progress) -> CheckedModel:
            raise ModelLoadError(f"model {name!r} version {version}: {fault}")

        spec = ModelSpec(name, version, (), ())
        return ModelDefinition(spec, "python", folder, folder), settings, load


class Standing(NamedTuple):
    """What serves when a reload begins.

    Attributes:
        seen: names of the models that the server knows.
        up: names of those that have a version which was not taken out of service.
        sources: sources of the versions that were not taken out of service, by name and version.
        overrides: what clients had overridden, by name and version.
    """

    seen: frozenset[str]
    up: frozenset[str]
    sources: dict[Key, VersionSource]
    overrides: dict[Key, dict[str, Any]]


class Change(NamedTuple):
    """What the disk and other settings mean for the models.

    Attributes:
        coming: versions to load.
        staying: names and versions of what may go on to serve.
        instances: how many instances of all models share the cores afterwards.
    """

    coming: list[FoundVersion]
    staying: frozenset[Key]
    instances: int


def at_start(settings: ServerSettings, base: Path) -> list[FoundVersion]:
    """Return the versions that serve from the start. Raises ConfigError. Disk thread."""
    folders = _loaded_at_start(settings, find_models(settings, base))
    return [_define(source_of(folder, settings, {})) for folder in folders]


def at_load(
    folder: ModelFolder,
    settings: ServerSettings,
    overrides: dict[str, Any],
    known: VersionSource | None,
) -> FoundVersion:
    """Return the version in `folder`, without its definition if it is still as `known`.

    Raises ConfigError: the model's settings contradict each other. Disk thread.
    """
    source = source_of(folder, settings, overrides, known)
    return FoundVersion(source) if source == known else _define(source)


def at_reload(settings: ServerSettings, base: Path, standing: Standing) -> Change:
    """Return what changes under other `settings` and by the files. Raises ConfigError.

    Disk thread.
    """
    folders = find_models(settings, base)
    wanted = _wanted(settings, folders, standing)
    sources = [
        source_of(folder, settings, standing.overrides.get(key, {}), standing.sources.get(key))
        for folder, key in ((folder, (folder.name, folder.version)) for folder in wanted)
    ]
    coming = [source for source in sources if source != standing.sources.get(source.key)]
    staying = folders if settings.model_control == "explicit" else wanted
    return Change(
        [_define(source) for source in coming],
        frozenset((folder.name, folder.version) for folder in staying),
        sum(source.instances for source in sources),
    )


def _define(source: VersionSource) -> FoundVersion:
    try:
        return FoundVersion(source, source.define())
    except ConfigError as err:
        return FoundVersion(source, fault=str(err))


def _wanted(
    settings: ServerSettings, folders: list[ModelFolder], standing: Standing
) -> list[ModelFolder]:
    """Return the versions that are to serve.

    Where clients load and unload models, a model that a client has loaded or unloaded is left as it
    is.
    """
    from_start = _loaded_at_start(settings, folders)
    if settings.model_control == "none":
        return from_start
    return [
        folder
        for folder in folders
        if folder.name in standing.up or (folder.name not in standing.seen and folder in from_start)
    ]


def _loaded_at_start(settings: ServerSettings, folders: list[ModelFolder]) -> list[ModelFolder]:
    """Return those of `folders` whose versions serve from the start. Raises ConfigError."""
    wanted = settings.load_at_start
    if wanted is None:
        return folders
    known = {folder.name for folder in folders}
    for name in wanted:
        if name not in known:
            place = settings.origin("load_at_start")
            raise ConfigError(
                f"{place}: load_at_start: expected of {', '.join(sorted(known)) or 'none'}; got "
                f"{name!r}"
            )
    return [folder for folder in folders if folder.name in wanted]

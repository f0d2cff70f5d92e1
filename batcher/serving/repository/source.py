"""What a version of a model is loaded from: its files and its settings.

Loaded again from equal ones it would be the same.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings, share_threads
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Progress
from batcher.serving.repository.folders import ModelFolder
from batcher.workers.thread import Load


class VersionSource(NamedTuple):
    """What a version is loaded from.

    Attributes:
        folder: where it stands.
        files: path, time of change and size of each of its files.
        settings: those of its model, before threads are shared out.
        asked: what a client asked for otherwise when it had the model loaded.
    """

    folder: ModelFolder
    files: tuple[tuple[str, int, int], ...]
    settings: ModelSettings
    asked: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return self.folder.name, self.folder.version

    def define(self) -> ModelDefinition:
        """Return its definition as it is on disk now. Raises ConfigError."""
        return load_model_definition(self.folder.name, self.folder.version, self.folder.folder)

    def shared(self, models: int) -> ModelSettings:
        """Return the settings that it runs with if `models` share the cores."""
        return share_threads(self.settings.model_copy(update=self.asked), models)

    def offered(self, models: int) -> tuple[ModelDefinition, ModelSettings, Load | None]:
        """Return what to add; a model whose definition is wrong fails to load, and keeps the reason visible."""
        try:
            return self.define(), self.shared(models), None
        except ConfigError as err:
            reason = str(err)
        name, version, folder = self.folder.name, self.folder.version, self.folder.folder

        def load(progress: Progress) -> CheckedModel:
            raise ModelLoadError(f"model {name!r} version {version}: {reason}")

        return (
            ModelDefinition(ModelSpec(name, version, (), ()), "python", folder, folder),
            self.shared(models),
            load,
        )


def given(folder: ModelFolder, settings: ServerSettings, asked: dict[str, Any]) -> VersionSource:
    """Look at what `folder` is loaded from now.

    Raises ConfigError: its settings contradict each other.
    """
    return VersionSource(folder, _files(folder.folder), settings.for_model(folder.name), asked)


def _files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return path, time of change and size of every file of a version."""
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # it has just been removed
            if path.is_file() and "__pycache__" not in path.parts:
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)

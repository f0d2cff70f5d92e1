"""What is tuned: one version of a model, how it is run now, and servers that run it otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batcher.config.model_settings import ModelSettings
from batcher.config.reading import Source, validate
from batcher.config.settings import ServerSettings, share_threads
from batcher.models.pytorch.module import choose_device
from batcher.serving.repository.fetching import find_and_fetch, newest_version
from batcher.serving.repository.folders import settings_for
from batcher.serving.repository.listing import ModelFolder

KEPT = (
    "cpu_pool_threads",
    "cpu_pool_tasks",
    "cpu_pool_bytes",
    "max_body_bytes",
    "max_buffer_bytes",
    "max_connections",
    "max_decoding_bytes",
    "switch_interval_ms",
)
"""Settings of the whole server that a model's speed may depend on."""

Changes = Mapping[str, Any]
"""Settings of the model that differ from the present ones."""


class Subject(NamedTuple):
    """A model to be tuned.

    Attributes:
        found: the newest version of the model.
        present: how the model is run now, with its share of the cores.
        place: where the model lies, as an entry of `models` in the configuration.
        server: settings of the whole server.
    """

    found: ModelFolder
    present: ModelSettings
    place: Mapping[str, Any]
    server: Mapping[str, Any]

    @property
    def is_on_cpu(self) -> bool:
        """Whether all instances run on the CPU."""
        return {choose_device(device) for device in self.present.devices} == {"cpu"}

    @property
    def without_warmup(self) -> Changes:
        """Changes that leave warm-up out where nothing is made in it.

        Its largest batches would take most of the time of a costly model. A GPU makes kernels
        then, and `compile` code.
        """
        return {"warmup": False} if self.is_on_cpu and self.present.compile == "none" else {}

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.found.name}/{self.found.version}"

    def configuration(self, models: Mapping[str, Changes]) -> dict[str, Any]:
        """Return a configuration whose server has this model once for each of `models`.

        Each stands under its name, with its own changes. Nobody else can reach that server.
        """
        present = self.present.model_dump(mode="json", exclude_defaults=True)
        present["versions"] = "all"
        entries = {name: {**self.place, **present, **own} for name, own in models.items()}
        here = {"host": "127.0.0.1", "port": 0, "model_repository": None}
        return {**self.server, **here, "models": entries}

    def settings(self, models: Mapping[str, Changes]) -> ServerSettings:
        """Return that configuration as settings."""
        return validate(ServerSettings, Source(self.configuration(models), {(): "batcher tune"}))


def find_subject(name: str, settings: ServerSettings, base: Path) -> Subject:
    """Return the newest version of the model `name` in the configuration.

    Raises:
        ConfigError: there is no such model.
    """
    folders = find_and_fetch(settings, base).folders
    found = newest_version(name, folders)
    instances = sum(settings_for(folder, settings).local_instances for folder in folders)
    present = share_threads(settings_for(found, settings), instances)
    server = {key: value for key in KEPT if (value := getattr(settings, key)) is not None}
    return Subject(found, present, _place(found), server)


def _place(found: ModelFolder) -> dict[str, Any]:
    if found.single is None:
        return {"path": str(found.folder.absolute())}
    single = found.single
    path = f"{single.file}:{single.entry}" if single.entry else str(single.file)
    place: dict[str, Any] = {"path": path, "inputs": single.inputs, "outputs": single.outputs}
    place["sample"] = str(single.sample) if single.sample is not None else None
    return {key: value for key, value in place.items() if value is not None}

"""The model of a job in this process, behind the scheduler and the workers of a server.

No port is opened. The largest batch is that of the settings. A request of a job is one such batch,
so nothing is gained by waiting for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred

from batcher.app.jobs.sources import digest
from batcher.app.process_settings import leave_libraries, set_collector, set_switch_interval
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.config.settings import ServerSettings, share_threads
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array, ModelSpec
from batcher.serving.jobs.job import Shape
from batcher.serving.repository.fetching import find_and_fetch, newest_version
from batcher.serving.repository.folders import define, settings_for
from batcher.serving.repository.listing import ModelFolder
from batcher.serving.repository.source import paths_of
from batcher.serving.server import ModelServer

MOST_PORTIONS = 30
"""Batches that wait for the model, besides two for each instance that run: several short ones are
read at once.
"""


class LocalModel(NamedTuple):
    """The model of a job.

    Attributes:
        found: where it lies.
        definition: what it is.
        settings: how it is run.
        server: settings of the whole server.
    """

    found: ModelFolder
    definition: ModelDefinition
    settings: ModelSettings
    server: ServerSettings

    @property
    def title(self) -> str:
        """The model, for messages."""
        return f"loading {self.found.name}/{self.found.version}"

    @property
    def spec(self) -> ModelSpec:
        """Inputs and outputs of the model."""
        return self.definition.spec

    @property
    def shape(self) -> Shape:
        """How much of a job is under way."""
        return Shape(self.settings.max_batch_size, MOST_PORTIONS + 2 * self.settings.most_instances)

    def identity(self) -> dict[str, Any]:
        """Return what changes whenever the answers may."""
        facts: list[object] = [self.found.name, self.found.version, self.found.stored]
        if self.found.stored is None:
            for path in sorted(paths_of(self.found)):
                if path.is_file():
                    stat = path.stat()
                    facts += (path.name, stat.st_size, stat.st_mtime_ns)
        title = f"{self.found.name}/{self.found.version}"
        return {
            "model": {"title": title, "digest": digest(facts)},
            "largest batch": self.settings.max_batch_size,
        }


def find_local(name: str, settings: ServerSettings, base: Any) -> LocalModel:
    """Return the newest version of the model `name`. Raises ConfigError: there is none."""
    found = newest_version(name, find_and_fetch(settings, base).folders)
    own = settings_for(found, settings)
    own = share_threads(own, own.instances).model_copy(update=_alone(own))
    return LocalModel(found, define(found, own.trusted), own, settings)


def _alone(own: ModelSettings) -> dict[str, Any]:
    """Return settings of a model that has no other clients than one job."""
    rows = own.max_batch_size * (MOST_PORTIONS + 2 * own.most_instances)
    return {
        "policy": "eager",
        "max_delay_ms": 0.0,
        "max_queue_rows": max(own.max_queue_rows, rows),
        "remember_failed_s": 0.0,
    }


class LocalServer:
    """Loads the model and answers requests. Reactor thread."""

    patience = inf

    def __init__(
        self, model: LocalModel, reactor: AsyncioSelectorReactor, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Load nothing yet."""
        self._model = model
        call = loop.call_soon_threadsafe
        self.server = ModelServer(reactor, call, model.server, call_soon=loop.call_soon)
        self._parameters = Parameters(deadline=inf)

    def load(self) -> Deferred[None]:
        """Load the model; fails with ModelLoadError."""
        leave_libraries()
        return self.server.add(self._model.definition, self._model.settings).addCallback(self._tune)

    def _tune(self, _: object) -> None:
        set_switch_interval(self._model.server, self.server)
        set_collector()

    def infer(self, inputs: Mapping[str, Array]) -> Deferred[InferenceResponse]:
        """Answer one request."""
        version = self.server.ready_model(self._model.found.name, self._model.found.version)
        return version.infer(inputs, self._parameters)

    def stop(self) -> Deferred[None]:
        """End the workers."""
        return self.server.stop()

"""The model of a job in this process, behind the scheduler and the workers of a server.

No port is opened. The largest batch is that of the settings. A request of a job is one such batch,
so nothing is gained by waiting for more. A pipeline is loaded with the models of its steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

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
        steps: the models that a pipeline asks, each once.
    """

    found: ModelFolder
    definition: ModelDefinition
    settings: ModelSettings
    server: ServerSettings
    steps: tuple[LocalModel, ...] = ()

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
        facts = list(self._facts())
        for step in self.steps:
            facts += (*step._facts(), step.settings.max_batch_size)
        title = f"{self.found.name}/{self.found.version}"
        return {
            "model": {"title": title, "digest": digest(facts)},
            "largest batch": self.settings.max_batch_size,
        }

    def _facts(self) -> Iterator[object]:
        """Yield what tells the files of this model from others."""
        yield from (self.found.name, self.found.version, self.found.stored)
        if self.found.stored is None:
            for path in sorted(paths_of(self.found)):
                if path.is_file():
                    stat = path.stat()
                    yield from (path.name, stat.st_size, stat.st_mtime_ns)


def find_local(name: str, settings: ServerSettings, base: Any) -> LocalModel:
    """Return the newest version of the model `name`. Raises ConfigError: there is none."""
    folders = find_and_fetch(settings, base).folders
    settings = _undivided(settings)
    model = _model(newest_version(name, folders), settings)
    parts = [_model(folder, settings) for folder in _of_steps(model.definition, folders, settings)]
    instances = sum(part.settings.instances for part in parts) or model.settings.instances
    rows = _window_rows(model.settings)
    steps = [_alone(part, instances, rows) for part in parts]
    return _alone(model, instances, rows)._replace(steps=tuple(steps))


def _undivided(settings: ServerSettings) -> ServerSettings:
    """Return `settings` by which one version of each model answers: no other one is loaded."""
    whole: dict[str, Any] = {"traffic": {}, "shadow": None, "canary": None}
    models = {name: own.model_copy(update=whole) for name, own in settings.models.items()}
    return settings.model_copy(update={"models": models})


def _model(found: ModelFolder, settings: ServerSettings) -> LocalModel:
    own = settings_for(found, settings)
    return LocalModel(found, define(found, own.trusted), own, settings)


def _of_steps(
    definition: ModelDefinition, folders: Sequence[ModelFolder], settings: ServerSettings
) -> list[ModelFolder]:
    """Return the versions that the steps of a pipeline ask for, each once.

    What is not there is left out: the pipeline names that, with the line, when it is loaded.
    """
    wanted: dict[tuple[str, str], ModelFolder] = {}
    for step in definition.plan.steps if definition.plan is not None else ():
        number = settings.for_model(step.model).number_of(step.version) if step.version else ""
        versions = [
            folder
            for folder in folders
            if folder.name == step.model and (not step.version or folder.version == number)
        ]
        if versions:
            newest = max(versions, key=lambda folder: int(folder.version))
            wanted[newest.name, newest.version] = newest
    return list(wanted.values())


def _window_rows(own: ModelSettings) -> int:
    """Return the rows of a job that are under way at a time."""
    return own.max_batch_size * (MOST_PORTIONS + 2 * own.most_instances)


def _alone(model: LocalModel, instances: int, rows: int) -> LocalModel:
    """Return `model` with settings of one that has no other clients than one job.

    It shares the cores with all `instances`, and takes so many `rows` at a time.
    """
    own = share_threads(model.settings, instances)
    alone = {
        "policy": "eager",
        "max_delay_ms": 0.0,
        "max_queue_rows": max(own.max_queue_rows, rows),
        "remember_failed_s": 0.0,
    }
    return model._replace(settings=own.model_copy(update=alone))


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
        """Load the model, and those of its steps; fails with ModelLoadError."""
        leave_libraries()
        models = (*self._model.steps, self._model)
        loads = [self.server.add(each.definition, each.settings) for each in models]
        loaded = gatherResults(loads, consumeErrors=True)
        return loaded.addCallbacks(self._tune, _first_failure)

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


def _first_failure(failure: Failure) -> Failure:
    """Return why the first of several loads has failed."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure

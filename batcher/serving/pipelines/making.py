"""Puts a version of a pipeline together: what it has in the place of workers, and its stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from batcher.batching.worker import Worker
from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.spec import ModelSpec
from batcher.serving.assembly import Assembly
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.pipelines.models import FindServable, PipelineModels
from batcher.serving.pipelines.on_device import OnDevice
from batcher.serving.pipelines.stage import PipelineStage
from batcher.serving.pipelines.worker import Links, PipelineWorker
from batcher.serving.stages.stage import Stage


class PipelineMaker:
    """Makes the parts of pipelines. Reactor thread."""

    def __init__(self, parts: Assembly, lifecycle: ModelLifecycle, find: FindServable) -> None:
        """Make pipelines of the models in `lifecycle`, which `find` finds for requests."""
        self._parts = parts
        self._lifecycle = lifecycle
        self._find = find

    def make(
        self, definition: ModelDefinition, settings: ModelSettings, report: Callable[[str], None]
    ) -> tuple[Worker, Sequence[Stage]]:
        """Return the worker of a pipeline, which `report`s of loading, and its stages."""
        spec, parts = definition.spec, self._parts
        assert definition.plan is not None, "a pipeline has a plan"
        metrics, seconds = parts.metrics.model(*_key(spec)), parts.clock.seconds
        stage = PipelineStage("/".join(_key(spec)), settings, parts.pools.cpu, seconds, metrics)
        models = PipelineModels(self._lifecycle, self._find, definition.plan)
        links = Links(
            models,
            OnDevice(definition.plan, models.instances_of),
            stage,
            parts.metrics.pipelines.of(*_key(spec)),
            self._watch,
            partial(self._is_adopted, spec),
            report,
        )
        worker = PipelineWorker(definition, settings, links, parts.clock, parts.call_from_thread)
        return worker, (stage,)

    def _watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._lifecycle.watch(changed)
        return partial(self._lifecycle.watchers.remove, changed)

    def _is_adopted(self, spec: ModelSpec, worker: PipelineWorker) -> bool:
        found = self._lifecycle.versions.get(*_key(spec))
        return found is not None and any(each is worker for each in found.workers)


def _key(spec: ModelSpec) -> tuple[str, str]:
    return spec.name, spec.version


def make_pipelines(parts: Assembly, lifecycle: ModelLifecycle, find: FindServable) -> None:
    """Have `parts` make pipelines of the models in `lifecycle`. Reactor thread."""
    parts.make_pipeline = PipelineMaker(parts, lifecycle, find).make

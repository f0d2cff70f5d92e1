"""The models of a pipeline: which version answers a step now, and how it stands with all of them.

A step names a model, and a version by number or label if it likes. So a model can be replaced, or
share its requests with another version, and the pipeline goes on with whatever serves that name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from batcher.batching.worker import Condition
from batcher.config.pipelines.plan import Plan, Step
from batcher.core.epoch import Epoch
from batcher.core.spec import ModelSpec
from batcher.errors import BatcherError
from batcher.serving.model_lifecycle import ModelLifecycle
from batcher.serving.model_version import GONE, LEFT, ModelState, ModelVersion
from batcher.serving.pipelines.fitting import nested_pipeline, unknown_model
from batcher.serving.servable import Servable
from batcher.workers.instances import Instances

FindServable = Callable[[str, str], Servable]
"""Returns what answers for the name and version of a model, also while the server drains."""


class Standing(NamedTuple):
    """How it stands with the models of a pipeline.

    Attributes:
        condition: that of the worst of them.
        reason: why it is not alive, in words.
        is_wrong: whether a step names a model that is not here, or a pipeline: it cannot be loaded.
    """

    condition: Condition
    reason: str = ""
    is_wrong: bool = False


class PipelineModels:
    """Finds the models of the steps of one pipeline. Reactor thread."""

    def __init__(self, lifecycle: ModelLifecycle, find: FindServable, plan: Plan) -> None:
        """Find what the steps of `plan` name among the versions of `lifecycle`, by `find`."""
        self._lifecycle = lifecycle
        self._find = find
        self._steps = [step for step in plan.steps if step.model]
        self._plan = plan

    def finders(self) -> dict[str, Callable[[], Servable]]:
        """Return by step what finds its model for a request."""
        return {step.name: Finder(self._lifecycle, self._find, step).find for step in self._steps}

    def waits_for(self, is_coming: bool) -> str:
        """Return in words which model is still being loaded; empty if none is."""
        for step in self._steps:
            for version in self._versions(step, is_coming):
                # Two pipelines would wait for each other; they are refused below.
                if version.state is ModelState.LOADING and version.definition.plan is None:
                    return f"it waits for model {version.title}: {version.status_text}"
        return ""

    def specs(self, is_coming: bool) -> dict[str, ModelSpec]:
        """Return the specification of each step's model, by the name of the step."""
        found = {step.name: self._newest(step, is_coming) for step in self._steps}
        return {
            step.name: self._spec_of(step, version)
            for step in self._steps
            if (version := found[step.name]) is not None
        }

    def _spec_of(self, step: Step, version: ModelVersion) -> ModelSpec:
        """Return the specification of what answers a step, of whose versions one is `version`."""
        if step.version or not version.adopted:
            return version.spec
        try:  # a newer one may be there beside it, for copies or for a trial alone
            return self._find(step.model, "").spec
        except BatcherError:  # none can answer now
            return version.spec

    def instances_of(self, step: Step) -> list[Instances]:
        """Return the instances of each version that may answer a step, or is about to."""
        return [version.workers for version in self._versions(step, is_coming=True)]

    def standing(self, is_coming: bool) -> Standing:
        """Return how it stands with the models now.

        With `is_coming`, versions that are loaded and do not serve yet count as well: the pipeline
        itself is such a version, of the same change.
        """
        worst = Standing(Condition.ALIVE)
        for step in self._steps:
            each = self._standing_of(step, is_coming)
            if each.condition is Condition.DEAD:
                return each
            if each.condition is not Condition.ALIVE:
                worst = each
        return worst

    def _standing_of(self, step: Step, is_coming: bool) -> Standing:
        version = self._newest(step, is_coming)
        if version is None:
            names = sorted({each.spec.name for each in self._lifecycle.versions})
            return Standing(Condition.DEAD, str(unknown_model(self._plan, step, names)), True)
        if version.definition.plan is not None:
            return Standing(Condition.DEAD, str(nested_pipeline(self._plan, step)), True)
        if version.state is ModelState.READY:
            return Standing(Condition.ALIVE)
        condition = Condition.RESTARTING if version.accepts else Condition.DEAD
        text = f"step {step.name!r} needs model {version.title}, which is {version.status_text}"
        return Standing(condition, text)

    def _newest(self, step: Step, is_coming: bool) -> ModelVersion | None:
        """Return the version that answers a step, or if none can, the newest there is."""
        versions = self._versions(step, is_coming)
        able = [version for version in versions if version.accepts]
        return max(able or versions, key=lambda each: int(each.spec.version), default=None)

    def _versions(self, step: Step, is_coming: bool) -> list[ModelVersion]:
        """Return the versions that may answer a step."""
        table = self._lifecycle.versions
        found = {each.spec.version: each for each in table.named(step.model)}
        if is_coming:
            found |= {each.spec.version: each for each in self._coming(step.model)}
        if not step.version:
            return [each for each in found.values() if each.state not in GONE]
        number = found.get(step.version) and step.version
        number = number or table.number_of(step.model, step.version)
        return [found[number]] if number in found and found[number].state not in GONE else []

    def _coming(self, name: str) -> list[ModelVersion]:
        """Return the versions of the model `name` that are loaded beside those that serve."""
        alive = [version for version in self._lifecycle.alive if version.spec.name == name]
        return [each for each in alive if not each.adopted and each.state not in LEFT]


class Finder:
    """Finds the model of one step, once in each epoch. Reactor thread."""

    def __init__(self, lifecycle: ModelLifecycle, find: FindServable, step: Step) -> None:
        """Find the model of `step`."""
        self._lifecycle = lifecycle
        self._find = find
        self._key = step.model, step.version
        self._epoch: Epoch | None = None
        self._servable: Servable | None = None

    def find(self) -> Servable:
        """Return what answers the step in this epoch. Raises UnknownModel or ModelNotReady."""
        epoch = self._lifecycle.epoch
        if self._epoch is not epoch or self._servable is None:
            self._servable = self._find(*self._key)
            self._epoch = epoch
        return self._servable

"""Whether the steps of pipelines go with the models of a configuration, without loading any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from batcher.app.checking.entry import check_entry
from batcher.config.model_file import ModelDefinition
from batcher.config.pipelines.plan import Plan, Step
from batcher.config.settings import ServerSettings
from batcher.core.spec import ModelSpec
from batcher.serving.pipelines.fitting import fit, nested_pipeline, unknown_model


def check_pipeline(
    definition: ModelDefinition,
    known: Mapping[str, Sequence[ModelDefinition]],
    settings: ServerSettings,
) -> None:
    """Check the steps of the pipeline `definition`, with the models that are `known` by name.

    Raises ConfigError, with file and line.
    """
    plan = definition.plan
    assert plan is not None, "a pipeline has a plan"
    fit(definition.spec, plan, partial(_spec_of, plan, known, settings))
    for step in plan.steps:
        if step.entry:
            check_entry(replace(definition, format="python", entry=step.entry))


def _spec_of(
    plan: Plan, known: Mapping[str, Sequence[ModelDefinition]], settings: ServerSettings, step: Step
) -> ModelSpec:
    """Return the specification of the model of `step`. Raises ConfigError."""
    versions = known.get(step.model, ())
    if step.version:
        number = settings.for_model(step.model).number_of(step.version)
        versions = [each for each in versions if each.spec.version == number]
    if not versions:
        raise unknown_model(plan, step, known)
    newest = max(versions, key=lambda each: int(each.spec.version))
    if newest.plan is not None:
        raise nested_pipeline(plan, step)
    return newest.spec

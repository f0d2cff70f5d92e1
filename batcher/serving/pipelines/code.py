"""The author's code in the steps of a pipeline: `class: module:Class`."""

from __future__ import annotations

from functools import partial
from typing import Any

from batcher.batching.worker import CallFromThread
from batcher.config.model_file import ModelDefinition
from batcher.config.pipelines.plan import Step
from batcher.core.error_text import summary
from batcher.errors import ModelLoadError
from batcher.models.hook_turns import watched
from batcher.models.own_code import with_place
from batcher.models.version_code.importing import import_from_folder
from batcher.serving.pipelines.graph import Code
from batcher.workers.load_alone import load_alone


def load_code(
    holder: object, definition: ModelDefinition, title: str, call_from_thread: CallFromThread
) -> dict[str, Code]:
    """Return by step what its class makes, or its function, while nothing else loads.

    Raises ModelLoadError. The thread that loads.
    """
    load = partial(_load_all, definition, title)
    return load_alone(holder, title, load, call_from_thread)


def _load_all(definition: ModelDefinition, title: str) -> dict[str, Code]:
    assert definition.plan is not None, "a pipeline has a plan"
    found = {}
    for step in definition.plan.steps:
        if step.entry:
            try:
                found[step.name] = _load(definition, step)
            # Whatever the author's code raises is the reason that the pipeline cannot be served.
            except BaseException as err:
                text = with_place(summary(err), err)
                reason = f"{title}: step {step.name!r}: {step.entry}: {text}"
                raise ModelLoadError(reason) from err
    return found


def _load(definition: ModelDefinition, step: Step) -> Code:
    module_name, _, name = step.entry.partition(":")
    made: Any = getattr(import_from_folder(definition, module_name), name)
    if isinstance(made, type):
        made = made()
    if not callable(made):
        got = type(made).__name__
        raise TypeError(f"expected a function, or a class with `__call__`; got {got}")
    return watched(made, f"step {step.name!r}")

"""All built-in steps by their names in `use`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from batcher.config.pipelines.plan import Plan, Step
from batcher.config.reading import Source, validate
from batcher.core.error_text import brief
from batcher.errors import ConfigError
from batcher.serving.pipelines.built_in.boxes import CropBoxes, Fold
from batcher.serving.pipelines.built_in.built_in import BuiltIn
from batcher.serving.pipelines.built_in.pictures import Resize, Turn
from batcher.serving.pipelines.built_in.scores import Argmax, Label, Softmax, Threshold, TopK

BUILT_IN: dict[str, type[BuiltIn]] = {
    "argmax": Argmax,
    "crop_boxes": CropBoxes,
    "fold": Fold,
    "label": Label,
    "resize": Resize,
    "softmax": Softmax,
    "threshold": Threshold,
    "top_k": TopK,
    "turn": Turn,
}


def built_in(plan: Plan, step: Step) -> BuiltIn:
    """Return the built-in step that `step` uses. Raises ConfigError. Any thread."""
    found: Any = BUILT_IN.get(step.use)
    if found is None:
        close = get_close_matches(step.use, BUILT_IN, 1, 0.5)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        expected = f"expected one of {', '.join(BUILT_IN)}"
        raise plan.error((*step.key, "use"), f"{expected}; got {brief(step.use)}{meant}")
    key = (*step.key, "with")
    origins = {
        place[len(key) :]: origin
        for place, origin in plan.origins.items()
        if place[: len(key)] == key
    }
    origins.setdefault((), Source({}, dict(plan.origins)).origin(key))
    try:
        options = validate(found.options, Source(dict(step.options), origins))
    except ConfigError as err:
        raise ConfigError(f"{err} (`with` of step {step.name!r})") from None
    made: BuiltIn = found(options) if found.options.model_fields else found()
    return made

"""Which batches of a model are captured as CUDA graphs, and with what rows.

The rows are those of warm-up, behind `preprocess`: those of the model's sample, or else blank ones.
"""

from __future__ import annotations

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.blank_rows import WarmupBatch, unsized_inputs
from batcher.models.protocol import Arrays, Model, Progress
from batcher.models.sample import sample_of


def capture(
    model: Model, definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> tuple[int, ...]:
    """Capture `model` in batches of some sizes; return these, ascending. None if it gains nothing.

    Raises:
        ModelLoadError: the model cannot be captured; the message says why.
        Exception: whatever the model raises.

    Inference thread.
    """
    sample = sample_of(definition, model.sample)
    _refuse_unknown_shapes(model, settings, has_sample=sample is not None)

    def example(rows: int) -> Arrays:
        return WarmupBatch(model, rows, 1, sample).inputs()

    return model.capture(definition.batch_sizes, example, progress)


def _refuse_unknown_shapes(model: Model, settings: ModelSettings, has_sample: bool) -> None:
    """Raise ModelLoadError if rows of a model have several shapes, or one that nobody knows."""
    if not settings.warmup:
        raise ModelLoadError("expected `warmup: true`, since warm-up shows what a graph would do")
    if model.spec.is_padded:
        raise ModelLoadError("expected rows of one shape; got rows that are padded")
    free = [tensor.name for tensor in model.spec.inputs if tensor.free_axes]
    if free and model.preprocess is None:
        raise ModelLoadError(f"expected inputs without free axes; got {', '.join(free)}")
    if not has_sample and (reason := unsized_inputs(model.spec)):
        raise ModelLoadError(f"expected rows to capture with; got {reason}")

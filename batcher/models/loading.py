"""From a definition to a model that is loaded, warmed up and known to keep its contract."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.core.error_text import message
from batcher.errors import BatcherError, ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.models.protocol import Hook, Model, Progress
from batcher.models.warmup import warm_up

_MODULES = {
    "python": "batcher.models.pytorch.python_class",
    "torchscript": "batcher.models.pytorch.torchscript",
    "export": "batcher.models.pytorch.export",
    "onnx": "batcher.models.onnx",
}


def load_model(
    definition: ModelDefinition, settings: ModelSettings, progress: Progress
) -> CheckedModel:
    """Load and warm up a model. Inference thread.

    Args:
        definition: what it is.
        settings: how it is run.
        progress: told what is being done.

    Raises:
        ModelLoadError: it cannot be loaded, or fails on its warm-up; the message names the model
            and the reason.
    """
    try:
        progress("loading")
        model = make_model(definition, settings)
        device = _device(settings.devices[0])
        if device != "cpu":
            import_module("torch").cuda.set_device(
                device
            )  # of this thread, for whatever asks for no device by name
        model.load(device)
        if settings.compile != "none":
            _compile(model, progress)
        checked = CheckedModel(model, settings.finite_outputs)
        if settings.warmup:
            warm_up(checked, settings.max_batch_size, progress)
        return checked
    except (
        BaseException
    ) as err:  # whatever a model's own code raises is the reason that it cannot be served
        raise _load_error(definition, err) from err


def make_model(definition: ModelDefinition, settings: ModelSettings) -> Any:
    """Return the model of `definition`, not loaded yet. Any thread."""
    return import_format(definition).MODEL(definition, settings)


def import_format(definition: ModelDefinition) -> ModuleType:
    """Import what loads models of the format of `definition`, and with it PyTorch or onnxruntime. Any thread."""
    return import_module(_MODULES[definition.format])


def make_hooks(
    definition: ModelDefinition, settings: ModelSettings
) -> tuple[Hook | None, Hook | None]:
    """Return `preprocess` and `postprocess` of a model that is loaded in another process.

    Any thread.

    Its class is imported and made here for them, and neither loaded nor given weights.

    Raises:
        ModelLoadError: that fails; the message names the model and the reason.
    """
    try:
        made = make_model(definition, settings).make()
        return getattr(made, "preprocess", None), getattr(made, "postprocess", None)
    except BaseException as err:
        raise _load_error(definition, err) from err


def _load_error(definition: ModelDefinition, error: BaseException) -> ModelLoadError:
    text, kind = message(error), type(error).__name__
    reason = (
        text if text and isinstance(error, BatcherError) else f"{kind}: {text}" if text else kind
    )
    return ModelLoadError(
        f"model {definition.spec.name!r} version {definition.spec.version}: {reason}"
    )


def compile_ahead(definition: ModelDefinition, settings: ModelSettings) -> Path:
    """Return the compiled package of a model, made now if there is none. Any thread.

    Raises:
        ModelLoadError: it cannot be compiled; the message says why.
    """
    package: Path = import_module("batcher.models.pytorch.aoti").find_or_compile(
        definition, settings, _device(settings.devices[0])
    )
    return package


def _compile(model: Model, progress: Progress) -> None:
    try:
        model.compile(progress)
    except ModelLoadError as err:
        progress(f"not compiled: {err}. It is served as it is")


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    device: str = import_module("batcher.models.pytorch.module").choose_device(wanted)
    return device

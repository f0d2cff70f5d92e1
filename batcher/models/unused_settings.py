"""Settings for modules of PyTorch on a GPU: what is said at start where they mean nothing.

Such a setting may stand in `defaults`, for all models, so it is no error for one of them.
"""

from __future__ import annotations

from batcher.config.model_settings import ModelSettings

_MODULES = ("python", "torchscript", "export", "keras")
"""Formats whose models are modules of PyTorch, but for classes with `predict`."""

_OF_MODULES = (
    "dtype",
    "autocast",
    "channels_last",
    "cuda_graphs",
    "overlap_copies",
    "preprocess_on",
)
"""Settings of such models; each asks for something unless it is null, false, auto or cpu."""


def unused_note(settings: ModelSettings, kind: str) -> str:
    """Return the note that settings mean nothing to a model of `kind`; empty if all do. Any thread.

    `kind` is a format, or says in words what the model is.
    """
    names = [
        name for name in _OF_MODULES if getattr(settings, name) not in (None, False, "auto", "cpu")
    ]
    if not names or kind in _MODULES:
        return ""
    return f"expected a module of PyTorch for {', '.join(names)}; got {kind}, which runs as it is"


def memory_note(settings: ModelSettings, device: str) -> str:
    """Return the note that `memory_limit` means nothing on `device`; empty if it does. Any thread.

    It is a limit of a GPU's memory. That of the machine is for its control groups to limit.
    """
    if settings.memory_limit is None or device != "cpu":
        return ""
    return "expected a GPU for memory_limit; got the CPU, where nothing limits a model's memory"


def overlap_note(settings: ModelSettings, kind: str, device: str) -> str:
    """Return the note that `overlap_copies` means nothing to a module; empty if it does.

    Any thread.
    """
    if not settings.overlap_copies or kind not in _MODULES:
        return ""
    if device == "cpu":
        return "expected a GPU for overlap_copies; got the CPU, where nothing is copied"
    if settings.worker == "thread":
        return ""
    return (
        f"expected `worker: thread` for overlap_copies; got {settings.worker}, where a batch is "
        "copied before and after it computes"
    )


def unused_notes(settings: ModelSettings, kind: str, device: str) -> list[str]:
    """Return all these notes, as far as there are some. Any thread."""
    notes = (
        unused_note(settings, kind),
        memory_note(settings, device),
        overlap_note(settings, kind, device),
    )
    return [*filter(None, notes)]

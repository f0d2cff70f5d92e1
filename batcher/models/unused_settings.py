"""Settings that only modules of PyTorch know: what is said at start where a model is none.

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


def unused_notes(settings: ModelSettings, kind: str, device: str) -> list[str]:
    """Return both notes, as far as there is one. Any thread."""
    return [*filter(None, (unused_note(settings, kind), memory_note(settings, device)))]

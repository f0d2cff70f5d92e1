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

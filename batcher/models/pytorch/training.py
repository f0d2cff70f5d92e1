"""Which parts of a model are in training mode, although the model serves.

The server calls `.eval()` of a `torch.nn.Module`. That call does not reach modules in a plain list
or dict, nor the modules that a class with `predict` holds, nor those of a module whose own `eval`
does nothing. Dropout in training mode draws at random, and batch normalisation mixes the rows of a
batch: wrong answers without an error. Some models call `.eval()` in `predict`, so it is only known
after the first batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from batcher.models.version_code.names import package_of

MAX_OBJECTS = 100_000
"""Most objects that are looked at: a model may hold a list of millions of values."""


def training_note(model: object) -> str:
    """Return the note that parts of `model` are in training mode; empty if none is.

    Inference thread.
    """
    found: dict[str, set[str]] = {}
    for place, kind in _parts_in_training(model):
        found.setdefault(place, set()).add(kind)
    if not found:
        return ""
    places = ", ".join(f"{place} ({', '.join(sorted(kinds))})" for place, kinds in found.items())
    return (
        f"in training mode: {places}. Answers may be drawn at random, or depend on the other rows "
        "of a batch: call `.eval()` of it before the first batch"
    )


def _parts_in_training(model: object) -> Iterator[tuple[str, str]]:
    """Yield the attribute of `model` that holds each part in training mode, and the part's kind."""
    name = type(model).__name__
    waiting: list[tuple[str, Any]] = [(name, model)]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_OBJECTS:
        place, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module) and (kind := _kind_in_training(value)):
            yield place, kind
        for key, inner in _held(value, value is model):
            is_attribute = value is model and not key.startswith("_")
            waiting.append((f"{name}.{key}" if is_attribute else place, inner))


def _held(value: Any, is_root: bool) -> list[tuple[str, Any]]:
    """Return what `value` holds, by name: modules, and whatever may hold modules in its turn."""
    if isinstance(value, list | tuple):
        return [("", each) for each in value[:MAX_OBJECTS] if _may_hold(each)]
    if isinstance(value, dict):
        return [(str(key), each) for key, each in list(value.items()) if _may_hold(each)]
    if isinstance(value, torch.jit.ScriptModule):
        return list(value.named_children())
    if is_root or _may_hold(value):
        with suppress(Exception):  # a class may have no `__dict__`, or one of its own making
            return [(name, each) for name, each in vars(value).items() if _may_hold(each)]
    return []


def _may_hold(value: object) -> bool:
    """Return whether `value` is a module, a collection, or of a class in the model's own files."""
    if isinstance(value, torch.nn.Module | list | tuple | dict):
        return True
    return bool(package_of(str(getattr(type(value), "__module__", ""))))


def _kind_in_training(module: torch.nn.Module) -> str:
    """Return the kind of `module` if it computes otherwise in training, and is in that mode."""
    if not module.training:
        return ""
    if isinstance(module, torch.jit.ScriptModule):
        kind = str(module.original_name)
        return kind if "Dropout" in kind or "BatchNorm" in kind else ""
    acts = isinstance(module, _BatchNorm) or (isinstance(module, _DropoutNd) and module.p > 0)
    return type(module).__name__ if acts else ""

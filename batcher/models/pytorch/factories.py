"""What `class:` in `model.yaml` may name: a class, or a function that makes the model.

    `class:` names                        how the model is made
    a class                               by the class, without arguments
    any other callable: a function, a     by the callable, without arguments, each time that a model
    method, `functools.partial`           is needed
    a model that is made already          refused: instances and reloads would share one object

A class or function must need no arguments: `model.yaml` has none to give.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from batcher.errors import ModelLoadError


def factory_of(maker: Any, entry: str) -> tuple[type, Callable[[], Any]]:
    """Return the class of the models that `maker` makes, and what makes one.

    `class: entry` names `maker`. The class of what a function returns is known only when the
    function has run: it runs here, and the first call of the factory returns its first model.

    Raises:
        ModelLoadError: `maker` is neither class nor function, needs arguments, or makes no model.
        BaseException: whatever a function raises.

    Any thread.
    """
    if isinstance(maker, type):
        if not _is_model(maker):
            raise _wrong(entry, f"the class {maker.__name__}")
        _refuse_arguments(maker, entry)
        return maker, maker
    _check_function(maker, entry)
    first = maker()
    if not _is_model(type(first)):
        got = f"the class {first.__name__}" if isinstance(first, type) else type(first).__name__
        raise _wrong(entry, f"a function that returns {got}")
    kept = [first]
    return type(first), lambda: kept.pop() if kept else maker()


def _check_function(maker: Any, entry: str) -> None:
    """Raise ModelLoadError unless `maker` is a callable without arguments. Any thread."""
    if maker is None:
        raise _wrong(entry, "nothing of that name")
    if _is_model(type(maker)):
        raise ModelLoadError(
            f"class {entry}: expected a class, or a function that makes the model; got a model "
            "that is made already. Write a function that returns the model"
        )
    if not callable(maker):
        raise _wrong(entry, f"an object of class {type(maker).__name__}")
    _refuse_arguments(maker, entry)


def _is_model(kind: type) -> bool:
    """Return whether objects of the class `kind` are models. Any thread."""
    return issubclass(kind, torch.nn.Module) or callable(getattr(kind, "predict", None))


def _refuse_arguments(maker: Callable[..., Any], entry: str) -> None:
    """Raise ModelLoadError if `maker` cannot be called without arguments. Any thread."""
    try:
        signature = inspect.signature(maker)
    except (TypeError, ValueError):  # a callable of native code
        return
    try:
        signature.bind()
    except TypeError as err:
        raise ModelLoadError(
            f"class {entry}: expected a class or function that needs no arguments; got "
            f"{entry.partition(':')[2]}{signature}. Write a function that gives them"
        ) from err


def _wrong(entry: str, got: str) -> ModelLoadError:
    """Return the error for a `class:` that makes no model. Any thread."""
    return ModelLoadError(
        f"class {entry}: expected a torch.nn.Module or a class with predict, or a function that "
        f"returns a model of either kind; got {got}"
    )

"""What `class:` in `model.yaml` may name: a class, or a function that makes the model.

    `class:` names                        how the model is made
    a class                               by the class, without arguments
    a class whose objects get `predict`   by the class; a first object is made to see whether it has
    when they are made or loaded          `predict`, or a `load` that may set it
    a function that `@batcher.model`      not at all: the function is called for each batch
    declares, or whose inputs are
    annotated with dtypes
    any other callable: a function, a     by the callable, without arguments, each time that a model
    method, `functools.partial`           is needed
    a model that is made already          refused: instances and reloads would share one object

A class or function must need no arguments: `model.yaml` has none to give.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from batcher.core.error_text import brief_names
from batcher.errors import ModelLoadError
from batcher.models.declaring import declaration_of
from batcher.models.describing.annotated import inputs_of, parameters_of


def factory_of(maker: Any, entry: str) -> tuple[type, Callable[[], Any]]:
    """Return the class of the models that `maker` makes, and what makes one.

    `class: entry` names `maker`. A function runs here, since only its result tells the class; the
    first call of the factory returns that model.

    Raises ModelLoadError: `maker` is neither class nor function, needs arguments, or makes no
    model; and whatever a function raises.

    Any thread.
    """
    if is_predict_function(maker):
        return FunctionModel, lambda: FunctionModel(maker)
    if isinstance(maker, type) and _is_model(maker):
        _refuse_arguments(maker, entry)
        return maker, maker
    _check_function(maker, entry)
    first = maker()
    if isinstance(first, type) or not _may_predict(first):
        got = f"the class {first.__name__}" if isinstance(first, type) else type(first).__name__
        what = f"the class {got}" if isinstance(maker, type) else f"a function that returns {got}"
        raise _wrong(entry, what)
    kept = [first]
    return type(first), lambda: kept.pop() if kept else maker()


class FunctionModel:
    """A function as a model: called with each input by its name, or with all as one mapping."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Serve `function`. Any thread."""
        self._function = function
        parameters = parameters_of(function)
        self._names = {each.name for each in parameters}
        self._is_open = any(each.kind is each.VAR_KEYWORD for each in parameters)

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        """Return what the function returns for `inputs`. Inference thread."""
        if self._is_open or inputs.keys() <= self._names:
            return self._function(**inputs)
        return self._function(inputs)


def is_predict_function(maker: Any) -> bool:
    """Return whether `maker` is a function that computes outputs, and makes no model."""
    if not inspect.isfunction(maker) or not parameters_of(maker):
        return False
    return declaration_of(maker) is not None or inputs_of(maker) is not None


def _check_function(maker: Any, entry: str) -> None:
    """Raise ModelLoadError unless `maker` is a callable without arguments. Any thread."""
    if _is_model(type(maker)):
        raise ModelLoadError(
            f"class {entry}: expected a class, or a function that makes the model; got a model "
            "that is made already. Write a function that returns the model"
        )
    if not callable(maker):
        raise _wrong(entry, f"an object of class {type(maker).__name__}")
    _refuse_arguments(maker, entry)


def _is_model(kind: type) -> bool:
    """Return whether objects of the class `kind` are models, `predict` a property included.

    Any thread.
    """
    return issubclass(kind, torch.nn.Module) or hasattr(kind, "predict")


def _may_predict(model: Any) -> bool:
    """Return whether `model` is a model, or one that its `load` completes. Any thread."""
    return _is_model(type(model)) or any(
        callable(getattr(model, name, None)) for name in ("predict", "load")
    )


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
            f"{entry.partition(':')[2]}{signature}. Give each argument a default, or write "
            "a function without arguments that returns the model, and name that function"
        ) from err


def nothing_named(entry: str, names: Mapping[str, Any]) -> ModelLoadError:
    """Return the error for a `class:` that is none of the `names` of its module. Any thread."""
    models = [
        name
        for name, each in names.items()
        if isinstance(each, type) and _is_model(each) and each.__module__ == names["__name__"]
    ]
    known = f"; there is {brief_names(models)}" if models else ""
    return _wrong(entry, f"nothing of that name{known}")


def _wrong(entry: str, got: str) -> ModelLoadError:
    """Return the error for a `class:` that makes no model. Any thread."""
    return ModelLoadError(
        f"class {entry}: expected a torch.nn.Module or a class with predict, or a function that "
        f"returns a model of either kind; got {got}"
    )

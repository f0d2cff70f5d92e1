"""What the annotations of a function say of its inputs and outputs.

    def forward(self, x: Annotated[Tensor, "FP32[784]"]) -> Annotated[Tensor, "FP32[10]"]
    def forward(self, x: "FP32[784]") -> {"scores": "FP32[10]"}
    def predict(self, inputs: Inputs) -> Outputs           # two classes of TypedDict, such as
    class Inputs(TypedDict):
        text: Annotated[np.ndarray, "BYTES[1]"]

Annotations that say nothing of dtype and shape, such as `torch.Tensor`, say nothing here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from batcher.config.tensor_text import is_tensor_text

Tensors = dict[str, Any]
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def inputs_of(function: Callable[..., Any]) -> Tensors | None:
    """Return the inputs that `function` is annotated with, None if they are not all said."""
    found: Tensors = {}
    parameters = [each for each in parameters_of(function) if each.kind in _NAMED]
    for parameter in parameters:
        value = _meaning(parameter.annotation, function)
        if (tensor := _text(value)) is not None:
            found[parameter.name] = tensor
        elif len(parameters) == 1:
            return _members(value)
        elif parameter.default is parameter.empty:
            return None
    return found or None


def outputs_of(function: Callable[..., Any]) -> Tensors | None:
    """Return the outputs that `function` is annotated with; None if they are not said."""
    try:
        returned = inspect.signature(function).return_annotation
    except (TypeError, ValueError):
        return None
    value = _meaning(returned, function)
    tensor = _text(value)
    return {"output": tensor} if tensor is not None else _members(value)


def parameters_of(
    function: Callable[..., Any], *, follow_wrapped: bool = True
) -> list[inspect.Parameter]:
    """Return what `function` takes, without `self`; nothing if Python cannot tell.

    `follow_wrapped` tells whether what a decorator has wrapped counts, or the decorator's own.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=follow_wrapped)
        listed = list(signature.parameters.values())
    except (TypeError, ValueError):
        return []
    return listed[1:] if listed and listed[0].name == "self" else listed


def _meaning(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return the annotation itself, where it stands as text (`from __future__ import …`)."""
    if not isinstance(annotation, str) or is_tensor_text(annotation):
        return annotation
    try:
        return eval(annotation, getattr(inspect.unwrap(function), "__globals__", {}))
    # Whatever stands in the text: the annotation then says nothing.
    except Exception:
        return None


def _text(value: Any) -> str | None:
    """Return the text about a tensor in an annotation; None if there is none."""
    candidates = get_args(value)[1:] if get_origin(value) is Annotated else (value,)
    texts = (each for each in candidates if isinstance(each, str) and is_tensor_text(each))
    return next(texts, None)


def _members(value: Any) -> Tensors | None:
    """Return the tensors that a mapping, or a class of annotated members, says."""
    if isinstance(value, Mapping):
        members: Mapping[str, Any] = value
    elif isinstance(value, type) and hasattr(value, "__annotations__"):
        try:
            members = get_type_hints(value, include_extras=True)
        # A text such as "FP32[3]" is no Python.
        except Exception:
            members = value.__annotations__
    else:
        return None
    found = {str(name): _text(each) for name, each in members.items()}
    return found if found and None not in found.values() else None

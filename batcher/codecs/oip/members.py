"""Members of the Open Inference Protocol's JSON: each function takes one kind, and checks it.

A member that is not what the protocol says raises InvalidInput, with the member's name, what was
expected and what the client sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from batcher.codecs.formats.long_lists import LongList
from batcher.core.error_text import brief
from batcher.errors import InvalidInput, NotServed

MAX_TIMEOUT_US = 86_400_000_000
"""One day, in microseconds; a longer timeout is cut to one day."""

MAX_PARAMETERS = 100
"""Most parameters of a request, an input or an output: clients send a handful."""

BULK_PRIORITY = -1
"""Priority of a request that names the class `bulk` instead of a number: below all the model's
levels.
"""

_INPUTS_FORM = (
    ': write {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": '
    "[4, 4]}]}, or post plain rows to /models/NAME/predict"
)
_FORMS = {
    "body": _INPUTS_FORM,
    "inputs": _INPUTS_FORM,
    "outputs": ': write {"outputs": [{"name": "y"}]}',
}
"""Member of a request to an example of its form, which stands behind an error's text."""

_UNSET = (0, "", None, False)
"""Values by which clients say that a sequence parameter is not used."""


def parameters_of(holder: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output; `where` names the holder.

    Raises:
        InvalidInput: a value is not a string, number or boolean, or a name is reserved.
        NotServed: shared memory or a sequence is asked for; to ignore that would be a wrong answer.
    """
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    named = object_of(parameters, f"{where}: parameters")
    _check_number(len(named), f"{where}: parameters")
    for key, value in named.items():
        _check_parameter(key, value, where)
    return dict(named)


def _check_parameter(key: str, value: Any, where: str) -> None:
    """Check one parameter of what `where` names. Raises as `parameters_of` does."""
    if value is None or isinstance(value, dict | list | LongList):
        raise InvalidInput(
            f"{where}: parameter {brief(key)}: expected a string, a number or a boolean; got "
            f"{value_text(value)}"
        )
    if key.startswith("shared_memory_"):
        raise NotServed(f"{where}: shared memory is not served: send the tensors in the body")
    if key.startswith("sequence_") and value not in _UNSET:
        raise NotServed(f"{where}: sequences are not served: every request is its own")
    if key == "headers" or key.startswith("triton_"):
        raise InvalidInput(
            f"{where}: expected another name for the parameter {brief(key)}, which is reserved"
        )


def _check_number(count: int, where: str) -> None:
    """Check the number of parameters of what `where` names. Raises InvalidInput."""
    if count > MAX_PARAMETERS:
        raise InvalidInput(f"{where}: expected at most {MAX_PARAMETERS}; got {count}")


def priority_of(parameters: dict[str, Any]) -> int:
    """Return the priority: 1 and up, 0 for the default, or BULK_PRIORITY."""
    value = parameters.get("priority", 0)
    if value == "bulk":
        return BULK_PRIORITY
    if not is_whole(value):
        raise InvalidInput(
            "priority: expected 1 (the highest) and up, 'bulk', or 0 for the default; got "
            f"{value_text(value)}"
        )
    return int(value)


def timeout_of(parameters: dict[str, Any]) -> float | None:
    """Return the timeout in seconds, at most a day; None for the default."""
    value = parameters.get("timeout", 0)
    if not is_whole(value):
        raise InvalidInput(
            f"timeout: expected microseconds, or 0 for the default; got {value_text(value)}"
        )
    return min(value, MAX_TIMEOUT_US) / 1e6 if value else None


def flag_of(parameters: dict[str, Any], key: str, where: str) -> bool | None:
    """Return the parameter `key`, which is true or false; None where it is absent."""
    value = parameters.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{where}: {key}: expected true or false; got {value_text(value)}")
    return value


def object_of(value: Any, where: str) -> dict[str, Any]:
    """Return `value`, which is to be an object; `where` names it in an error."""
    if not isinstance(value, dict):
        form = _FORMS.get(where, "")
        raise InvalidInput(f"{where}: expected an object; got {value_text(value)}{form}")
    return value


def list_of(document: dict[str, Any], key: str) -> Iterable[Any]:
    """Return the member `key`, which is to be a list of at least one tensor."""
    value = document.get(key)
    if isinstance(value, LongList):
        # `map` reads piece after piece; mypyc would make a list of all from a generator expression.
        return chain.from_iterable(map(_elements, value.pieces()))
    if not isinstance(value, list) or not value:
        raise InvalidInput(
            f"{key}: expected a list of tensors; got "
            f"{'none' if key not in document else value_text(value)}{_FORMS.get(key, '')}"
        )
    return value


def _elements(piece: list[Any] | LongList) -> list[Any]:
    # a long list among tensors is no tensor, and is refused like any other value
    return piece if isinstance(piece, list) else [piece]


def is_whole(value: object) -> bool:
    """Return whether `value` is a whole number of 0 or more."""
    # not isinstance: to Python a boolean is an int
    return type(value) is int and value >= 0


def value_text(value: object) -> str:
    """Return `value` as an error message shows it, cut to 60 characters."""
    return "a long list" if isinstance(value, LongList) else brief(value, 60)

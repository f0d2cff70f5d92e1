"""Members of the Open Inference Protocol's JSON, checked as they are taken.

InvalidInput where one is not what it should be.
"""

from __future__ import annotations

from typing import Any

from batcher.errors import InvalidInput, NotServed

MAX_TIMEOUT_US = 86_400_000_000
"""A day; a longer timeout is as good as that."""

BULK = -1
"""The level of a request that names no number but the class `bulk`, which stands below the model's
levels.
"""

_UNSET = (0, "", None, False)


def parameters_of(holder: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters of a request, an input or an output.

    Refuse what is not served rather than ignore it.
    """
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    for key, value in object_of(parameters, f"{where}: parameters").items():
        if value is None or isinstance(value, dict | list):
            raise InvalidInput(
                f"{where}: parameter {key!r}: expected a string, a number or a boolean; got "
                f"{described(value)}"
            )
        if key.startswith("shared_memory_"):
            raise NotServed(f"{where}: shared memory is not served: send the tensors in the body")
        if key.startswith("sequence_") and value not in _UNSET:
            raise NotServed(f"{where}: sequences are not served: every request is its own")
        if key == "headers" or key.startswith("triton_"):
            raise InvalidInput(
                f"{where}: expected another name for the parameter {key!r}, which is reserved"
            )
    return dict(parameters)


def priority_of(parameters: dict[str, Any]) -> int:
    """Return the level, 0 for the default, or BULK."""
    value = parameters.get("priority", 0)
    if value == "bulk":
        return BULK
    if not is_whole(value):
        raise InvalidInput(
            "priority: expected 1 (the highest) and up, 'bulk', or 0 for the default; got "
            f"{described(value)}"
        )
    return int(value)


def timeout_of(parameters: dict[str, Any]) -> float | None:
    """Return the timeout in seconds, None for the default."""
    value = parameters.get("timeout", 0)
    if not is_whole(value):
        raise InvalidInput(
            f"timeout: expected microseconds, or 0 for the default; got {described(value)}"
        )
    return min(value, MAX_TIMEOUT_US) / 1e6 if value else None


def flag_of(parameters: dict[str, Any], key: str, where: str) -> bool | None:
    """Return a parameter that is true or false, None where it is absent."""
    value = parameters.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{where}: {key}: expected true or false; got {described(value)}")
    return value


def object_of(value: Any, where: str) -> dict[str, Any]:
    """Return `value`, an object."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: expected an object; got {described(value)}")
    return value


def list_of(document: dict[str, Any], key: str) -> list[Any]:
    """Return the member `key`, a list of tensors."""
    value = document.get(key)
    if not isinstance(value, list) or not value:
        raise InvalidInput(
            f"{key}: expected a list of tensors; got "
            f"{'none' if key not in document else described(value)}"
        )
    return value


def is_whole(value: object) -> bool:
    """Whether `value` is a whole number of 0 and more."""
    return type(value) is int and value >= 0


def described(value: object) -> str:
    """Write what came, shortened."""
    return f"{value!r:.60}"

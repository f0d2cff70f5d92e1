"""Names of classes, as TorchServe's handlers read and use them."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable
from functools import wraps
from types import ModuleType
from typing import Any


class PredictionException(Exception):
    """What a handler raises to fail a batch with a status of its own."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        """Fail with `message` and the status `error_code`."""
        super().__init__(message)
        self.message = message
        self.error_code = error_code


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return the names of classes by their numbers as text; None without such a file.

    Raises:
        ValueError: the file is not of one of the three forms that TorchServe takes.
    """
    if not os.path.isfile(mapping_file_path):
        return None
    with open(mapping_file_path, encoding="utf-8") as file:
        mapping = json.load(file)
    if not isinstance(mapping, dict):
        raise ValueError(f"index_to_name.json: expected a mapping; got {type(mapping).__name__}")
    if isinstance(names := mapping.get("object_type_names"), list):
        return {str(place): str(name) for place, name in enumerate(names)}
    named = {key: name[-1] if isinstance(name, list) else name for key, name in mapping.items()}
    if wrong := [key for key, name in named.items() if not isinstance(name, str)]:
        raise ValueError(f"index_to_name.json: {wrong[0]}: expected a text, or a list of texts")
    return named


def map_class_to_label(
    probs: list[Any],
    mapping: dict[str, str] | None = None,
    lbl_classes: Iterable[Iterable[Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return for each row a mapping of the names of classes to the values in `probs`."""
    classes = [range(len(row)) for row in probs] if lbl_classes is None else lbl_classes
    return [
        {
            (str(each) if mapping is None else mapping[str(each)]): value
            for each, value in zip(kinds, values, strict=False)
        }
        for kinds, values in zip(classes, probs, strict=False)
    ]


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that `module` itself defines, by their names."""
    found = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__
    ]
    return [each for each in found if parent_class is None or issubclass(each, parent_class)]


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as it is: a decorator of TorchServe's that measures a method."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call

"""What is to be described, and what was found: the values that parent and child exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batcher.config.tensor_text import tensor_values
from batcher.errors import ConfigError

Values = dict[str, Any]
"""What `model.yaml` would say."""


@dataclass(slots=True)
class Found:
    """What is known of a model so far.

    Attributes:
        values: what `model.yaml` would say; `inputs` and `outputs` are absent while unknown.
        notes: where that is known from, in words, for people.
        example: a first example, as arrays by the names of the inputs; None without one.
    """

    values: Values
    notes: list[str]
    example: Any = None


def listed(tensors: Mapping[str, Any], place: str) -> list[Values]:
    """Return `tensors`, declared at `place`, as `model.yaml` lists them. Raises ConfigError."""
    try:
        return [tensor_values(name, declared) for name, declared in tensors.items()]
    except ValueError as err:
        raise ConfigError(f"{place}: {err}") from err

"""What the parameters of a client's load mean: settings of the model that the client overrides.

The protocol lets a client send a configuration of the model, and files. A client of this server may
override `max_batch_size` alone. Everything else is refused, since the files and the settings of a
model belong to whoever runs the server.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from batcher.core.error_text import brief
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.engine import ModelControl


def load_for_client(control: ModelControl, name: str, parameters: dict[str, Any]) -> Deferred[None]:
    """Load the model `name` with the settings that `parameters` of a request override.

    Raises and fails as `ModelControl.load` and `overrides_of` do. Reactor thread.
    """
    # First of all: a client that may not load gets that answer, whatever its parameters are.
    control.check_controlled()
    return control.load(name, overrides_of(parameters))


def overrides_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the parameters of a client's load change. Raises InvalidInput."""
    for key in parameters:
        if key != "config":
            raise InvalidInput(
                f"parameters: expected `config` alone; got {brief(key)}: files are not taken from "
                "clients"
            )
    text = parameters.get("config", "{}")
    config = _config(text)
    if config.keys() - {"name", "max_batch_size"} or not _is_size(config.get("max_batch_size", 1)):
        raise InvalidInput(
            "config: expected max_batch_size of 1 and more alone, the rest is the server's; got "
            f"{brief(text, 200)}"
        )
    return {"max_batch_size": config["max_batch_size"]} if "max_batch_size" in config else {}


def _config(text: object) -> dict[str, Any]:
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidInput(f"config: expected a model configuration as JSON; got {brief(text)}")
    return config


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31

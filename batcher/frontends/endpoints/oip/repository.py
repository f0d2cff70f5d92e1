"""The model repository extension of the Open Inference Protocol: what there is.

Loading and unloading where clients may.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_lists import from_json, to_json
from batcher.codecs.oip.members import object_of
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Body, Call, Reply
from batcher.serving.model_version import ModelState
from batcher.serving.repository.repository import ModelRepository, Version

_STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "READY",
    ModelState.UNLOADING: "UNLOADING",
}
"""States of the protocol; whatever else is UNAVAILABLE."""


class Repository:
    """`POST /v2/repository/…`."""

    def __init__(self, repository: ModelRepository) -> None:
        """Tell of `repository`, and change it if it lets itself be changed."""
        self._repository = repository

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer every version of every model with its state, or those that are ready.

        Raises ClientError. Reactor thread.
        """
        ready = _document(call.body).get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidInput(f"ready: expected true or false; got {ready!r:.60}")
        return succeed(Reply(200, b"application/json", to_json(self.entries(ready))))

    def entries(self, ready: bool) -> list[dict[str, Any]]:
        """Return an entry for each version, or for those that are `ready`. Reactor thread."""
        return [
            _entry(one)
            for one in self._repository.versions()
            if not ready or one.state is ModelState.READY
        ]

    def load(self, call: Call) -> Deferred[Reply]:
        """Load a model; fail as `ModelRepository.load` does. Reactor thread."""
        parameters = _parameters(call.body)
        return load_as_asked(self._repository, call.head.arguments["name"], parameters).addCallback(
            _done
        )

    def unload(self, call: Call) -> Deferred[Reply]:
        """Unload a model; fail as `ModelRepository.unload` does. Reactor thread."""
        _parameters(call.body)
        return self._repository.unload(call.head.arguments["name"]).addCallback(_done)


def _document(body: Body) -> dict[str, Any]:
    return object_of(from_json(body), "body") if len(body) else {}


def _parameters(body: Body) -> dict[str, Any]:
    found = _document(body).get("parameters")
    return {} if found is None else object_of(found, "parameters")


def _done(_: None) -> Reply:
    return Reply(200, b"application/json", b"")


def _entry(one: Version) -> dict[str, Any]:
    state = "UNAVAILABLE" if one.state is None else _STATES.get(one.state, "UNAVAILABLE")
    entry = {"name": one.name, "version": one.version, "state": state}
    return entry if one.state is ModelState.READY else {**entry, "reason": one.detail}


def load_as_asked(
    repository: ModelRepository, name: str, parameters: dict[str, Any]
) -> Deferred[None]:
    """Load the model `name` with what `parameters` of a request want otherwise.

    Raises what `ModelRepository.load` and `overrides_of` do. Reactor thread.
    """
    repository.check_controlled()  # before its parameters: who may not load is told so, whatever it sent
    return repository.load(name, overrides_of(parameters))


def overrides_of(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the parameters of a client's load change. Raises InvalidInput."""
    for key in parameters:
        if key != "config":
            raise InvalidInput(
                f"parameters: expected `config` alone; got {key!r:.80}: files are not taken from "
                "clients"
            )
    text = parameters.get("config", "{}")
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidInput(f"config: expected a model configuration as JSON; got {text!r:.80}")
    size = config.get("max_batch_size", 1)
    if (
        config.keys() - {"name", "max_batch_size"}
        or isinstance(size, bool)
        or not isinstance(size, int)
        or not 0 < size < 1 << 31
    ):
        raise InvalidInput(
            "config: expected max_batch_size of 1 and more alone, the rest is the server's; got "
            f"{text!r:.200}"
        )
    return {"max_batch_size": size} if "max_batch_size" in config else {}

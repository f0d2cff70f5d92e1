"""The model repository extension of the Open Inference Protocol: what there is; nothing is loaded or unloaded by clients."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.json_lists import from_json, to_json
from batcher.endpoints.call import Call, Reply
from batcher.errors import InvalidInput, Unavailable
from batcher.served import ModelState, ServedModel
from batcher.server import ModelServer

_STATES = {ModelState.LOADING: "LOADING", ModelState.READY: "READY"}
"""States of the protocol; whatever else is UNAVAILABLE."""


class Repository:
    """`POST /v2/repository/…`."""

    def __init__(self, server: ModelServer) -> None:
        """Tell of the models of `server`."""
        self._server = server

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer every version of every model with its state, or those that are ready. Raises ClientError. Reactor thread."""
        document = from_json(call.body) if len(call.body) else {}
        ready = document.get("ready", False) if isinstance(document, dict) else None
        if not isinstance(ready, bool):
            raise InvalidInput(f'body: expected nothing, or an object such as {{"ready": true}}; got {document!r:.60}')
        entries = [_entry(served) for served in self._server if not ready or served.state is ModelState.READY]
        return succeed(Reply(200, b"application/json", to_json(entries)))

    def refuse(self, call: Call) -> Deferred[Reply]:
        """Refuse to load or unload a model: the operator's configuration says which there are. Reactor thread."""
        raise Unavailable(f"models are loaded and unloaded by the server's configuration alone; got {call.head.path!r:.200}")


def _entry(served: ServedModel) -> dict[str, Any]:
    entry = {"name": served.spec.name, "version": served.spec.version, "state": _STATES.get(served.state, "UNAVAILABLE")}
    return entry if served.state is ModelState.READY else {**entry, "reason": served.detail}

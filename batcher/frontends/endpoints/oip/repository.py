"""The model repository extension of the Open Inference Protocol, over HTTP.

The extension lists the models, and loads and unloads models where clients may.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from batcher.codecs.content_coding import HEAVY_BYTES, Body, plain_body, too_large
from batcher.codecs.formats.json_text import from_json
from batcher.codecs.heavy import is_heavy
from batcher.codecs.oip.members import object_of
from batcher.core.error_text import brief
from batcher.errors import InvalidInput
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import ModelControl
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.oip.documents import index_entries
from batcher.frontends.endpoints.oip.load_parameters import load_for_client


class RepositoryRoutes:
    """`POST /v2/repository/…`. Reactor thread."""

    def __init__(self, control: ModelControl, guard: ControlGuard, disclosure: Disclosure) -> None:
        """List, load and unload models by `control`, for clients that `guard` lets through.

        `disclosure` says how much clients read of why a version is not ready.
        """
        self._control = control
        self._guard = guard
        self._disclosure = disclosure

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer every version of every model with its state, or only those that are ready.

        Raises DecodingError, InvalidInput or Forbidden, and fails with ModelNotReady.
        Reactor thread.
        """
        if self._control.controlled:
            self._guard.check(call.head.headers)
        ready = _document(call.body).get("ready", False)
        if not isinstance(ready, bool):
            raise InvalidInput(f"ready: expected true or false; got {brief(ready, 60)}")
        entries = index_entries(self._control, ready, self._disclosure, call.head.request_id)
        return entries.addCallback(json_reply)

    def load(self, call: Call) -> Deferred[Reply]:
        """Load a model; fails as `load_for_client` does, or with Forbidden. Reactor thread."""
        self._check_allowed(call)
        name, _ = call.head.model()
        return load_for_client(self._control, name, _parameters(call.body)).addCallback(
            _empty_reply
        )

    def unload(self, call: Call) -> Deferred[Reply]:
        """Unload a model; fails as `ModelControl.unload` does, or with Forbidden.

        Reactor thread.
        """
        self._check_allowed(call)
        _parameters(call.body)
        name, _ = call.head.model()
        return self._control.unload(name).addCallback(_empty_reply)

    def _check_allowed(self, call: Call) -> None:
        self._control.check_controlled()
        self._guard.check(call.head.headers)


def _document(body: Body) -> dict[str, Any]:
    if is_heavy(body):
        raise too_large(HEAVY_BYTES, " of JSON for a route that infers nothing")
    plain = plain_body(body)
    return object_of(from_json(plain), "the body") if len(plain) else {}


def _parameters(body: Body) -> dict[str, Any]:
    parameters = _document(body).get("parameters")
    return {} if parameters is None else object_of(parameters, "parameters")


def _empty_reply(_: None) -> Reply:
    return Reply(200, b"application/json", b"")

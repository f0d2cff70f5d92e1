"""The routes of trials of new versions: where one is, and how a person ends it.

Everybody may read where a trial is, as with `/v2/models/{name}/batching`. Only clients that may
load and unload models end one, and no web page but the server's own (`control_guard.py`).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from batcher.errors import Forbidden
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.openapi.operations import TEXT, object_of, operation_of
from batcher.frontends.endpoints.routing import Route

_STATUS = object_of(("model", "outcome"), model=TEXT, outcome=TEXT, reason=TEXT)
_READ = operation_of(_STATUS, {400: "The model has no canary.", 404: "No such model."})
_CHANGE = operation_of(
    _STATUS,
    {
        400: "The model has no canary, or no version is on trial.",
        403: "Clients may not, or not from a foreign page or name.",
        404: "No such model.",
        503: "The version that is to answer cannot.",
    },
)


class RolloutRoutes:
    """`/models/{name}/rollout`, and below it. Reactor thread."""

    def __init__(self, engine: Engine, control: ModelControl, guard: ControlGuard) -> None:
        """Show and end the trials of `engine`, for clients that `control` and `guard` let do so."""
        self._engine = engine
        self._control = control
        self._guard = guard

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        path = "/models/{name}/rollout"
        return (
            Route("GET", path, self.status, "Where the trial of a new version is.", _READ),
            Route("POST", f"{path}/promote", self.promote, "All requests to it.", _CHANGE),
            Route("POST", f"{path}/abort", self.abort, "No request to it any more.", _CHANGE),
        )

    def status(self, call: Call) -> Deferred[Reply]:
        """Answer where a trial is. Raises UnknownModel or InvalidInput. Reactor thread."""
        return json_reply(self._engine.traffic.canary(call.head.model()[0]).status())

    def promote(self, call: Call) -> Deferred[Reply]:
        """End a trial well. Raises as `status`, Forbidden, or ModelNotReady. Reactor thread."""
        self._check_allowed(call)
        self._engine.traffic.canary(call.head.model()[0]).promote()
        return self.status(call)

    def abort(self, call: Call) -> Deferred[Reply]:
        """Take the version on trial back; raises as `promote` does. Reactor thread."""
        self._check_allowed(call)
        self._engine.traffic.canary(call.head.model()[0]).abort()
        return self.status(call)

    def _check_allowed(self, call: Call) -> None:
        if not self._control.controlled:
            raise Forbidden(
                "rollouts are promoted and aborted by clients under `model_control: explicit` alone"
            )
        self._guard.check(call.head.headers)

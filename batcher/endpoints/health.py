"""Is the process up, is every model ready, and what do the numbers say."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.json_lists import to_json
from batcher.endpoints.call import Call, Reply
from batcher.endpoints.failures import failure_reply
from batcher.errors import Draining, ModelNotReady
from batcher.metrics import METRICS_CONTENT_TYPE
from batcher.server import ModelServer


class Health:
    """`/livez`, `/readyz` and `/metrics`."""

    def __init__(self, server: ModelServer) -> None:
        """Report on `server`."""
        self._server = server

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer 200 as long as the loop turns. Reactor thread."""
        return succeed(Reply(200, b"application/json", to_json({"live": True})))

    def ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 once every model is loaded and warmed up, else 503 with what is not. Reactor thread."""
        waiting = self._server.unready()
        if self._server.draining:
            error: Draining | ModelNotReady = Draining("not ready: the server is being stopped", retry_after=5)
        elif waiting:
            reasons = "; ".join(f"{title} is {reason}" for title, reason in waiting.items())
            error = ModelNotReady(f"not ready: {reasons}")
        else:
            return succeed(Reply(200, b"application/json", to_json({"ready": True})))
        return succeed(failure_reply(error, call.head.headers, more={"ready": False, "waiting_for": waiting}))

    def metrics(self, call: Call) -> Deferred[Reply]:
        """Answer all metrics as Prometheus text. Reactor thread."""
        return succeed(Reply(200, METRICS_CONTENT_TYPE.encode(), self._server.metrics.render()))

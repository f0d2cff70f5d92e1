"""Is the process up, is every model ready, and what do the numbers say."""

from __future__ import annotations

from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_lists import to_json
from batcher.errors import Draining, InvalidInput, ModelNotReady
from batcher.frontends.endpoints.call import Call, Headers, Reply
from batcher.frontends.endpoints.deep_check import DeepCheck, Outcome
from batcher.frontends.endpoints.failures import failure_reply
from batcher.serving.metrics import METRICS_CONTENT_TYPE
from batcher.serving.server import ModelServer


class Health:
    """`/livez`, `/readyz` and `/metrics`."""

    def __init__(self, server: ModelServer, expose_model_errors: bool) -> None:
        """Report on `server`; `expose_model_errors` says whether class and message of a model's own exception are told."""
        self._server = server
        self._check = DeepCheck(server, expose_model_errors)

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer 200 as long as the loop turns. Reactor thread."""
        return succeed(Reply(200, b"application/json", to_json({"live": True})))

    def ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 once every model is loaded and warmed up, else 503 with what is not.

        Reactor thread.

        With `deep=1` every model must then answer a blank row, too. Raises InvalidInput for another
        value than 0 or 1.
        """
        deep = _is_deep(call.head.query)
        waiting = self._server.unready()
        if self._server.draining:
            error: Draining | ModelNotReady = Draining(
                "not ready: the server is being stopped", retry_after=5
            )
        elif waiting:
            reasons = "; ".join(f"{title} is {reason}" for title, reason in waiting.items())
            error = ModelNotReady(f"not ready: {reasons}")
        elif deep:
            return self._check.run().addCallback(_checked, call.head.headers)
        else:
            return succeed(Reply(200, b"application/json", to_json({"ready": True})))
        return succeed(
            failure_reply(error, call.head.headers, more={"ready": False, "waiting_for": waiting})
        )

    def metrics(self, call: Call) -> Deferred[Reply]:
        """Answer all metrics as Prometheus text. Reactor thread."""
        return succeed(Reply(200, METRICS_CONTENT_TYPE.encode(), self._server.metrics.render()))


def _is_deep(query: str) -> bool:
    value = parse_qs(query, keep_blank_values=True).get("deep", ["0"])[-1]
    if value not in ("0", "1"):
        raise InvalidInput(f"deep: expected 0 or 1; got {value!r:.80}")
    return value == "1"


def _checked(outcome: Outcome, headers: Headers) -> Reply:
    found = {"seconds": outcome.seconds, "skipped": outcome.skipped}
    if not outcome.failed:
        return Reply(200, b"application/json", to_json({"ready": True, **found}))
    reasons = "; ".join(f"{title}: {reason}" for title, reason in outcome.failed.items())
    return failure_reply(
        ModelNotReady(f"not ready: {reasons}"),
        headers,
        more={"ready": False, "failed": outcome.failed, **found},
    )

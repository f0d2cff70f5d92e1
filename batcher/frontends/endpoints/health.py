"""Health routes: whether the process is up, whether every model is ready, and the metrics."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_text import to_json
from batcher.core.error_text import brief
from batcher.errors import InvalidInput, ModelNotReady
from batcher.frontends.endpoints.call import Call, Headers, Reply
from batcher.frontends.endpoints.deep_check import CheckResult, DeepCheck
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import failure_reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.readiness import unready_error
from batcher.serving.metrics import METRICS_CONTENT_TYPE

MAX_QUERY_CHARS = 1024
"""Longest query of `/readyz` that is read; the longest one that means anything has 6 characters."""


class HealthRoutes:
    """`/livez`, `/readyz` and `/metrics`. Reactor thread."""

    def __init__(self, engine: Engine, disclosure: Disclosure) -> None:
        """Report on `engine`; `disclosure` says how much of the reasons clients read."""
        self._engine = engine
        self._disclosure = disclosure
        self._check = DeepCheck(engine, disclosure)

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer 200 as long as the loop turns. Reactor thread."""
        return json_reply({"live": True})

    def ready(self, call: Call) -> Deferred[Reply]:
        """Answer 200 once every model is loaded and warmed up, else 503 that names the others.

        With `deep=1` in the query, each model must then also answer a blank row. Raises
        InvalidInput if `deep` is neither 0 nor 1. Reactor thread.
        """
        deep, headers = _is_deep(call.head.query), call.head.headers
        if error := unready_error(self._engine):
            waiting = self._engine.unready(public=not self._disclosure.errors)
            members = {"ready": False, "waiting_for": waiting, **self._left_out()}
            return succeed(failure_reply(error, headers, self._disclosure, members))
        if deep:
            return self._check.run().addCallback(self._deep_reply, headers)
        return json_reply({"ready": True, **self._left_out()})

    def _left_out(self) -> dict[str, Any]:
        """Return the member that names what in the repository is not served; none if all is."""
        left_out = self._engine.left_out
        return {"left_out": left_out} if left_out else {}

    def _deep_reply(self, result: CheckResult, headers: Headers) -> Reply:
        findings = {"seconds": result.seconds, "skipped": result.skipped, **self._left_out()}
        if not result.failed:
            return Reply(200, b"application/json", to_json({"ready": True, **findings}))
        reasons = "; ".join(f"{title}: {reason}" for title, reason in result.failed.items())
        members = {"ready": False, "failed": result.failed, **findings}
        error = ModelNotReady(f"not ready: {reasons}")
        return failure_reply(error, headers, self._disclosure, members)

    def metrics(self, call: Call) -> Deferred[Reply]:
        """Answer all metrics as Prometheus text. Reactor thread."""
        return succeed(Reply(200, METRICS_CONTENT_TYPE.encode(), self._engine.metrics.render()))


def _is_deep(query: str) -> bool:
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidInput(
            f"query: expected at most {MAX_QUERY_CHARS} characters; got {len(query)}"
        )
    value = parse_qs(query, keep_blank_values=True).get("deep", ["0"])[-1]
    if value not in ("0", "1"):
        raise InvalidInput(f"deep: expected 0 or 1; got {brief(value)}")
    return value == "1"

"""How a model's requests are batched, and why: what was learnt, and the last decisions.

An extension of our own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.batching.admission import Learnt
from batcher.codecs.formats.json_lists import to_json
from batcher.frontends.endpoints.call import Call, Reply
from batcher.serving.server import ModelServer


class Batching:
    """`GET …/batching`. Reactor thread."""

    def __init__(self, server: ModelServer) -> None:
        """Tell of the models of `server`."""
        self._server = server

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer policy, learnt times and last decisions of one version of a model. Reactor thread.

        Raises:
            UnknownModel: there is no such model or version.
        """
        served = self._server.find(
            call.head.arguments["name"], call.head.arguments.get("version", "")
        )
        metrics = self._server.metrics.model(served.spec.name, served.spec.version)
        admission = served.scheduler.admission
        learnt = admission.learnt() if admission is not None else Learnt([], 0.0, 0.0)
        document: dict[str, Any] = {
            "name": served.spec.name,
            "version": served.spec.version,
            "policy": served.settings.policy,
            "max_batch_size": served.settings.max_batch_size,
            "batch_ceiling_rows": served.scheduler.most_rows,
            "batch_ms": [
                {"rows": round(rows, 1), "ms": _milliseconds(seconds)}
                for rows, seconds in learnt.batches
            ],
            "margin_ms": _milliseconds(learnt.margin),
            "reserve_ms": _milliseconds(learnt.reserve),
            "flushes": dict(metrics.flushes),
            "last_batches": [
                {"rows": rows, "reason": reason} for rows, reason in metrics.last_batches
            ],
        }
        return succeed(Reply(200, b"application/json", to_json(document)))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)

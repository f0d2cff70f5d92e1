"""How a model's requests are batched, and why: what the scheduler has learnt, and its last batches.

The protocol knows no such document: this is an extension of our own.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.serving.metrics import ServerMetrics
from batcher.serving.model_version import ModelVersion


class BatchingRoute:
    """`GET …/batching`. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Describe the models of `engine`."""
        self._engine = engine

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer policy, learnt times and last batches of one version of a model. Reactor thread.

        Raises:
            UnknownModel: there is no such model or version.
        """
        version = self._engine.find(*call.head.model())
        return json_reply(_document(version, self._engine.metrics))


def _document(version: ModelVersion, metrics: ServerMetrics) -> dict[str, Any]:
    """Return the document of one version; its times are milliseconds."""
    counts = metrics.model(*version.key)
    estimates = version.scheduler.admission.estimates()
    return {
        "name": version.spec.name,
        "version": version.spec.version,
        "policy": version.settings.policy,
        "max_batch_size": version.settings.max_batch_size,
        "batch_ceiling_rows": version.scheduler.ceiling_rows,
        "batch_ms": [
            {"rows": round(rows, 1), "ms": _milliseconds(seconds)}
            for rows, seconds in estimates.batches
        ],
        "margin_ms": _milliseconds(estimates.margin),
        "reserve_ms": _milliseconds(estimates.reserve),
        "flushes": dict(counts.flushes),
        "last_batches": [{"rows": rows, "reason": reason} for rows, reason in counts.last_batches],
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)

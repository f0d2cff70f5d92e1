"""How a model's requests are batched, and why: in words, in numbers, and by its last batches.

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
from batcher.serving.monitoring.explaining import explain
from batcher.serving.monitoring.facts import Facts, Window, facts_of


class BatchingRoute:
    """`GET …/batching`. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Describe the models of `engine`."""
        self._engine = engine

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer what is known of the batches of one version of a model. Reactor thread.

        Raises:
            UnknownModel: there is no such model or version.
            Draining, ModelNotReady: the version does not serve, or not any more.
        """
        version, metrics = self._engine.ready_model(*call.head.model()), self._engine.metrics
        facts = facts_of(version, metrics, self._engine.seconds())
        return json_reply(_document(version, facts, metrics))


def _document(version: ModelVersion, facts: Facts, metrics: ServerMetrics) -> dict[str, Any]:
    """Return the document of one version; its times are milliseconds where no unit is named."""
    counts = metrics.model(*version.key)
    estimates = version.scheduler.admission.estimates()
    return {
        "name": version.spec.name,
        "version": version.spec.version,
        "policy": version.settings.policy,
        "max_batch_size": version.settings.max_batch_size,
        "batch_ceiling_rows": facts.ceiling_rows,
        "explanation": explain(facts)._asdict(),
        "lately": _lately(facts.window),
        "queue_rows": facts.waiting,
        "batch_ms": [
            {"rows": round(rows, 1), "ms": _milliseconds(seconds)} for rows, seconds in facts.times
        ],
        "wait": _wait(facts),
        "shapes": facts.shapes,
        "instances": {"alive": facts.alive, "all": facts.instances},
        "margin_ms": _milliseconds(estimates.margin),
        "reserve_ms": _milliseconds(estimates.reserve),
        "flushes": dict(counts.flushes),
        "last_batches": [{"rows": rows, "reason": reason} for rows, reason in counts.last_batches],
    }


def _lately(window: Window) -> dict[str, Any]:
    """Return the numbers of the last while with traffic."""
    return {
        "seconds": round(window.seconds, 3),
        "ended_s_ago": round(window.ended, 3),
        "batches": window.batches,
        "rows": round(window.rows),
        "requests": window.requests,
        "rows_per_batch": round(window.rows_per_batch, 2),
        "requests_at_once": round(window.at_once, 2),
        "queue_ms": _milliseconds(window.queued),
        "batch_ms": _milliseconds(window.batch_s),
        "model_busy": round(window.busy, 4),
        "loop_busy": round(window.loop_busy, 4),
        "padding": round(window.padding, 4),
        "flush_shares": {reason: round(window.share(reason), 4) for reason in window.flushes},
        "refused_rows": dict(window.refused),
        "expired_rows": window.expired,
        "failed_batches": window.failed,
    }


def _wait(facts: Facts) -> dict[str, Any]:
    """Return how long a free model waits for clients that return."""
    return {
        "clients_return": facts.returning,
        "ms": _milliseconds(facts.wait),
        "longest_ms": _milliseconds(facts.longest_wait),
        "max_delay_ms": _milliseconds(facts.max_delay),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)

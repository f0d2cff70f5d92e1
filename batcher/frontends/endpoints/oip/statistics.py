"""The statistics extension of the Open Inference Protocol: cumulative counts and nanoseconds."""

from __future__ import annotations

from time import time
from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_lists import to_json
from batcher.core.counters import BatchSpent, Spent
from batcher.frontends.endpoints.call import Call, Reply
from batcher.serving.model_version import ModelVersion
from batcher.serving.server import ModelServer

_NOTHING = {"count": 0, "ns": 0}


class Statistics:
    """`GET …/stats`; the document is the same over gRPC. Reactor thread."""

    def __init__(self, server: ModelServer) -> None:
        """Tell of the models of `server`."""
        self._server = server
        self._epoch = time() - server.seconds()

    def all_models(self, call: Call) -> Deferred[Reply]:
        """Answer the statistics of every version of every model. Reactor thread."""
        return _json(self.document("", ""))

    def model(self, call: Call) -> Deferred[Reply]:
        """Answer those of one version, or of every version of a model. Reactor thread."""
        return _json(
            self.document(call.head.arguments["name"], call.head.arguments.get("version", ""))
        )

    def document(self, name: str, version: str) -> dict[str, Any]:
        """Return the statistics of one version, of every version of a model, or, without `name`, of all.

        Raises:
            UnknownModel: there is no such model or version.
        """
        models = list(self._server)
        if name:
            found = self._server.find(name, version)
            models = (
                [found] if version else [served for served in models if served.spec.name == name]
            )
        return {"model_stats": list(map(self._entry, models))}

    def _entry(self, served: ModelVersion) -> dict[str, Any]:
        name, version = served.spec.name, served.spec.version
        statistics = self._server.metrics.model(name, version).statistics
        last = statistics.last
        return {
            "name": name,
            "version": version,
            "last_inference": 0 if last is None else round((self._epoch + last) * 1e3),
            "inference_count": statistics.rows,
            "execution_count": sum(size.predicting.count for size in statistics.sizes.values()),
            "inference_stats": {
                "success": _spent(statistics.success),
                "fail": _spent(statistics.fail),
                "queue": _spent(statistics.queue),
                **_batch(statistics.requests),
                "cache_hit": _NOTHING,
                "cache_miss": _NOTHING,
            },
            "response_stats": {},
            "batch_stats": [
                {"batch_size": rows, **_batch(spent)}
                for rows, spent in sorted(statistics.sizes.items())
            ],
            "memory_usage": [],
        }


def _batch(spent: BatchSpent) -> dict[str, dict[str, int]]:
    return {
        "compute_input": _spent(spent.collating),
        "compute_infer": _spent(spent.predicting),
        "compute_output": _spent(spent.splitting),
    }


def _spent(spent: Spent) -> dict[str, int]:
    return {"count": spent.count, "ns": max(round(spent.seconds * 1e9), 0)}


def _json(document: dict[str, Any]) -> Deferred[Reply]:
    return succeed(Reply(200, b"application/json", to_json(document)))

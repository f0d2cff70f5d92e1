"""The routes of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from batcher.errors import NotServed
from batcher.frontends.endpoints.call import Call, Endpoint, Reply
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.oip.batching import Batching
from batcher.frontends.endpoints.oip.infer import Infer
from batcher.frontends.endpoints.oip.metadata import Metadata
from batcher.frontends.endpoints.oip.repository import Repository
from batcher.frontends.endpoints.oip.statistics import Statistics
from batcher.frontends.endpoints.openapi import oip as described
from batcher.frontends.endpoints.routing import Route
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer

MODEL = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
"""A model's own paths: its newest version that is ready, or one version."""

SHARED_MEMORY = ("/v2/systemsharedmemory", "/v2/cudasharedmemory")


def oip_routes(server: ModelServer, models: ModelRepository) -> tuple[Route, ...]:
    """Return every route of the protocol, those of parts that are not served included."""
    meta, infer, stats, batching = (
        Metadata(server),
        Infer(server),
        Statistics(server),
        Batching(server),
    )
    rows: list[tuple[str, str, Endpoint, str, dict[str, Any]]] = [
        ("GET", "/v2/health/live", meta.live, "Whether the process is up.", described.LIVE),
        (
            "GET",
            "/v2/health/ready",
            meta.ready,
            "Whether every model is loaded and warmed up.",
            described.READY,
        ),
        (
            "GET",
            "/v2",
            meta.server,
            "Name, version and extensions of the server.",
            described.SERVER,
        ),
        (
            "GET",
            "/v2/models/stats",
            stats.all_models,
            "Cumulative numbers of every model.",
            described.ALL_STATISTICS,
        ),
    ]
    repository = Repository(models)
    path = "/v2/repository/models/{name}"
    rows += [
        (
            "POST",
            "/v2/repository/index",
            repository.index,
            "The models and their states.",
            described.INDEX,
        ),
        (
            "POST",
            f"{path}/load",
            repository.load,
            "Load a model, where clients may.",
            described.LOAD,
        ),
        (
            "POST",
            f"{path}/unload",
            repository.unload,
            "Unload a model, where clients may.",
            described.LOAD,
        ),
    ]
    for model in MODEL:
        rows += [
            (
                "GET",
                f"{model}/ready",
                meta.model_ready,
                "Whether the model is ready.",
                described.MODEL_READY,
            ),
            ("GET", f"{model}/config", meta.config, "The model's configuration.", described.CONFIG),
            (
                "GET",
                f"{model}/stats",
                stats.model,
                "Cumulative numbers of the model.",
                described.STATISTICS,
            ),
            (
                "GET",
                f"{model}/batching",
                batching,
                "How requests are batched, and why.",
                described.BATCHING,
            ),
            (
                "GET",
                model,
                meta.model,
                "The model's versions, inputs and outputs.",
                described.MODEL,
            ),
            (
                "POST",
                f"{model}/infer",
                infer,
                "Infer with JSON or binary tensors.",
                described.INFER,
            ),
        ]
    rows += [
        (method, pattern, not_served, "Not served: 501.", described.NOT_SERVED)
        for method, pattern in _not_served()
    ]
    return tuple(
        Route(method, pattern, endpoint, summary, operation, endpoint is infer, oip_failure_reply)
        for method, pattern, endpoint, summary, operation in rows
    )


def not_served(call: Call) -> Deferred[Reply]:
    """Refuse a part of the protocol that is not here. Reactor thread."""
    raise NotServed(
        f"expected a part of the protocol that is served, see GET /v2; got {call.head.path!r:.200}"
    )


def _not_served() -> list[tuple[str, str]]:
    settings = ["/v2/trace/setting", "/v2/models/{name}/trace/setting", "/v2/logging"]
    generate = [f"{model}/{verb}" for model in MODEL for verb in ("generate", "generate_stream")]
    both = [(method, pattern) for pattern in settings for method in ("GET", "POST")]
    memory = [
        ("GET", f"{kind}{region}/status")
        for kind in SHARED_MEMORY
        for region in ("", "/region/{region}")
    ]
    memory += [
        ("POST", f"{kind}/region/{{region}}/{verb}")
        for kind in SHARED_MEMORY
        for verb in ("register", "unregister")
    ]
    memory += [("POST", f"{kind}/unregister") for kind in SHARED_MEMORY]
    return [*both, *memory, *(("POST", pattern) for pattern in generate)]

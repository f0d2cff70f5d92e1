"""The routes of the Open Inference Protocol.

Parts of the protocol that the server lacks have routes, too. Their clients get a 501 that says so,
instead of a 404 that leaves them guessing.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from batcher.core.error_text import brief
from batcher.errors import NotServed
from batcher.frontends.endpoints.call import Call, Endpoint, Reply
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.oip.batching import BatchingRoute
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.oip.documents import Documents
from batcher.frontends.endpoints.oip.infer import Infer
from batcher.frontends.endpoints.oip.metadata import MetadataRoutes
from batcher.frontends.endpoints.oip.repository import RepositoryRoutes
from batcher.frontends.endpoints.oip.statistics import StatisticsRoutes
from batcher.frontends.endpoints.openapi.oip import (
    ALL_STATS,
    BATCHING,
    CONFIG,
    INDEX,
    INFER,
    LIVE,
    LOAD,
    MODEL,
    MODEL_READY,
    NOT_SERVED,
    READY,
    SERVER,
    STATS,
)
from batcher.frontends.endpoints.openapi.operations import Operation
from batcher.frontends.endpoints.routing import Route

MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
"""A model's own paths: its newest version that is ready, or one version."""

SHARED_MEMORY_PATHS = ("/v2/systemsharedmemory", "/v2/cudasharedmemory")


def oip_routes(
    engine: Engine, control: ModelControl, guard: ControlGuard, disclosure: Disclosure
) -> tuple[Route, ...]:
    """Return every route of the protocol, those of parts that the server lacks included."""
    documents = Documents(engine)
    meta, stats = MetadataRoutes(engine, documents), StatisticsRoutes(documents)
    return (
        *_server_routes(meta, stats),
        *_repository_routes(RepositoryRoutes(control, guard, disclosure)),
        *_model_routes(meta, stats, BatchingRoute(engine), Infer(engine)),
        *_refused_routes(),
    )


def _server_routes(meta: MetadataRoutes, stats: StatisticsRoutes) -> list[Route]:
    return [
        _get("/v2/health/live", meta.live, "Whether the process is up.", LIVE, fast=True),
        _get("/v2/health/ready", meta.ready, "Whether every model is ready.", READY, fast=True),
        _get("/v2", meta.server, "Name, version and extensions of the server.", SERVER),
        _get("/v2/models/stats", stats.all_models, "Cumulative numbers of every model.", ALL_STATS),
    ]


def _repository_routes(repository: RepositoryRoutes) -> list[Route]:
    model = "/v2/repository/models/{name}"
    return [
        _post("/v2/repository/index", repository.index, "The models and their states.", INDEX),
        _post(f"{model}/load", repository.load, "Load a model, where clients may.", LOAD),
        _post(f"{model}/unload", repository.unload, "Unload a model, where clients may.", LOAD),
    ]


def _model_routes(
    meta: MetadataRoutes, stats: StatisticsRoutes, batching: BatchingRoute, infer: Infer
) -> Iterator[Route]:
    for model in MODEL_PATHS:
        yield _get(f"{model}/ready", meta.model_ready, "Whether the model is ready.", MODEL_READY)
        yield _get(f"{model}/config", meta.config, "The model's configuration.", CONFIG)
        yield _get(f"{model}/stats", stats.model, "Cumulative numbers of the model.", STATS)
        yield _get(f"{model}/batching", batching, "How requests are batched, and why.", BATCHING)
        yield _get(model, meta.model, "The model's versions, inputs and outputs.", MODEL)
        yield _post(f"{model}/infer", infer, "Infer with JSON or binary tensors.", INFER, fast=True)


def _get(
    pattern: str, endpoint: Endpoint, summary: str, operation: Operation, fast: bool = False
) -> Route:
    return Route("GET", pattern, endpoint, summary, operation, fast, oip_failure_reply)


def _post(
    pattern: str, endpoint: Endpoint, summary: str, operation: Operation, fast: bool = False
) -> Route:
    return Route("POST", pattern, endpoint, summary, operation, fast, oip_failure_reply)


def refuse(call: Call) -> Deferred[Reply]:
    """Refuse a part of the protocol that the server lacks, with NotServed. Reactor thread."""
    got = brief(call.head.path, 200)
    raise NotServed(f"expected a part of the protocol that is served, see GET /v2; got {got}")


def _refused_routes() -> Iterator[Route]:
    summary = "Not served: 501."
    for pattern in ("/v2/trace/setting", "/v2/models/{name}/trace/setting", "/v2/logging"):
        yield _get(pattern, refuse, summary, NOT_SERVED)
        yield _post(pattern, refuse, summary, NOT_SERVED)
    for path in SHARED_MEMORY_PATHS:
        yield _get(f"{path}/status", refuse, summary, NOT_SERVED)
        yield _get(f"{path}/region/{{region}}/status", refuse, summary, NOT_SERVED)
    for path in SHARED_MEMORY_PATHS:
        yield _post(f"{path}/region/{{region}}/register", refuse, summary, NOT_SERVED)
        yield _post(f"{path}/region/{{region}}/unregister", refuse, summary, NOT_SERVED)
    for path in SHARED_MEMORY_PATHS:
        yield _post(f"{path}/unregister", refuse, summary, NOT_SERVED)
    for path in MODEL_PATHS:
        yield _post(f"{path}/generate", refuse, summary, NOT_SERVED)
        yield _post(f"{path}/generate_stream", refuse, summary, NOT_SERVED)

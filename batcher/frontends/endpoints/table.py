"""Every route of the server, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.clouds import cloud_routes
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.embeddings import embeddings_routes
from batcher.frontends.endpoints.engine import Engine, ModelControl
from batcher.frontends.endpoints.health import HealthRoutes
from batcher.frontends.endpoints.jobs import JobRoutes, Jobs
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from batcher.frontends.endpoints.oip.table import oip_routes
from batcher.frontends.endpoints.openai_batches.routes import Batches, BatchRoutes
from batcher.frontends.endpoints.openapi.native import native_operation
from batcher.frontends.endpoints.openapi.operations import (
    DOCUMENT,
    LIVE,
    METRICS,
    MODEL_PAGE,
    PAGE,
    READY,
)
from batcher.frontends.endpoints.pages import Pages
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.rollouts import RolloutRoutes
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.tf_serving import tf_serving_routes
from batcher.frontends.endpoints.torchserve import torchserve_routes


def routes(
    engine: Engine,
    control: ModelControl,
    settings: ServerSettings,
    disclosure: Disclosure,
    jobs: Jobs | None = None,
    batches: Batches | None = None,
) -> tuple[Route, ...]:
    """Return the table of routes.

    Args:
        engine: answers requests.
        control: lists models for clients, and loads and unloads models.
        settings: of the server.
        disclosure: decides what clients learn of errors.
        jobs: batch jobs; None where the server takes none.
        batches: files of clients, and jobs over them; None where the server takes none.
    """
    health, pages = HealthRoutes(engine, disclosure), Pages(engine, disclosure, jobs)
    native = (*_predict_routes(engine, Predict(engine, settings)), *_server_routes(health, pages))
    guarded = _guarded_routes(engine, control, ControlGuard(settings), disclosure, jobs, batches)
    tf_serving = tf_serving_routes(engine, disclosure, settings.max_image_pixels)
    own = (*native, *guarded, *embeddings_routes(engine), *tf_serving)
    return pages.show(_with_clouds(engine, settings, health, own))


def _with_clouds(
    engine: Engine, settings: ServerSettings, health: HealthRoutes, own: Sequence[Route]
) -> tuple[Route, ...]:
    """Return the routes of clouds, and our `own` ones beside them."""
    clouds = (*cloud_routes(engine, settings, health), *torchserve_routes(engine, settings))
    # A cloud's route may have the path of one of our own.
    taken = {(route.method, route.pattern) for route in clouds}
    rest = (route for route in own if (route.method, route.pattern) not in taken)
    return (*clouds, *rest)


def _guarded_routes(
    engine: Engine,
    control: ModelControl,
    guard: ControlGuard,
    disclosure: Disclosure,
    jobs: Jobs | None,
    batches: Batches | None,
) -> tuple[Route, ...]:
    """Return the routes of which `guard` checks some."""
    rollouts = RolloutRoutes(engine, control, guard).routes()
    batch = (*JobRoutes(jobs, guard).routes(), *BatchRoutes(batches, guard).routes())
    return (*rollouts, *batch, *oip_routes(engine, control, guard, disclosure))


def _predict_routes(engine: Engine, predict: Predict) -> list[Route]:
    post, operation = partial(Route, "POST", fast=True), partial(native_operation, engine)
    any_version, one_version = "/models/{name}/predict", "/models/{name}/versions/{version}/predict"
    labelled, which = "/models/{name}/labels/{label}/predict", "Infer with the version of a label."
    newest = "Infer with the newest version that is ready."
    return [
        post("/predict", predict, "Infer with the only model there is.", operation),
        post(any_version, predict, newest, operation),
        post(one_version, predict, "Infer with one version.", operation),
        post(labelled, predict, which, operation),
    ]


def _server_routes(health: HealthRoutes, pages: Pages) -> list[Route]:
    get = partial(Route, "GET")
    batches = "Why the batches of a model are as they are, for people."
    return [
        # Fast: beside a flood of pages, a platform must not take the process for dead.
        get("/livez", health.live, "Whether the process is up.", LIVE, fast=True),
        get("/readyz", health.ready, "Whether every model is ready.", READY, fast=True),
        get("/metrics", health.metrics, "All metrics as Prometheus text.", METRICS),
        get("/", pages.index, "The models and their state, for people.", PAGE),
        get("/models/{name}", pages.model, batches, MODEL_PAGE),
        get("/models/{name}/versions/{version}", pages.model, batches, MODEL_PAGE),
        get("/docs", pages.docs, "The routes and formats, for people.", PAGE),
        get("/openapi.json", pages.openapi, "The routes and formats, for programs.", DOCUMENT),
    ]

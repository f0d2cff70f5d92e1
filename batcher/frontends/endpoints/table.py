"""Every route of the server."""

from __future__ import annotations

from functools import partial

from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.clouds import cloud_routes
from batcher.frontends.endpoints.health import Health
from batcher.frontends.endpoints.oip.table import oip_routes
from batcher.frontends.endpoints.openapi.document import inference
from batcher.frontends.endpoints.openapi.operations import DOCUMENT, LIVE, METRICS, PAGE, READY
from batcher.frontends.endpoints.pages import Pages
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.tf_serving import tf_serving_routes
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer


def routes(
    server: ModelServer, repository: ModelRepository, settings: ServerSettings
) -> tuple[Route, ...]:
    """Return the routing table over `server` and the `repository` that its models come from."""
    predict, health = Predict(server, settings), Health(server, settings.expose_model_errors)
    pages = Pages(server)
    native = partial(inference, server)
    one = "/models/{name}/versions/{version}/predict"
    table: tuple[Route, ...] = (
        Route(
            "POST", "/predict", predict, "Infer with the only model there is.", native, fast=True
        ),
        Route(
            "POST",
            "/models/{name}/predict",
            predict,
            "Infer with the newest version that is ready.",
            native,
            fast=True,
        ),
        Route("POST", one, predict, "Infer with one version.", native, fast=True),
        Route("GET", "/livez", health.live, "Whether the process is up.", LIVE),
        Route(
            "GET", "/readyz", health.ready, "Whether every model is loaded and warmed up.", READY
        ),
        Route("GET", "/metrics", health.metrics, "All metrics as Prometheus text.", METRICS),
        Route("GET", "/", pages.index, "The models and their state, for people.", PAGE),
        Route("GET", "/docs", pages.docs, "The routes and formats, for people.", PAGE),
        Route(
            "GET", "/openapi.json", pages.openapi, "The routes and formats, for programs.", DOCUMENT
        ),
    )
    table += oip_routes(server, repository) + tf_serving_routes(server)
    clouds = cloud_routes(server, settings, predict, health)
    taken = {
        (route.method, route.pattern) for route in clouds
    }  # a cloud may choose a path that is one of ours
    table = clouds + tuple(route for route in table if (route.method, route.pattern) not in taken)
    pages.describe(table)
    return table

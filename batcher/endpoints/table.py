"""Every route of the server."""

from __future__ import annotations

from batcher.config.settings import ServerSettings
from batcher.endpoints.health import Health
from batcher.endpoints.oip.table import oip_routes
from batcher.endpoints.pages import Pages
from batcher.endpoints.predict import Predict
from batcher.endpoints.routing import Route
from batcher.endpoints.tf_serving import tf_serving_routes
from batcher.server import ModelServer


def routes(server: ModelServer, settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routing table over `server`."""
    predict, health = Predict(server, settings), Health(server)
    pages = Pages(server)
    table: tuple[Route, ...] = (
        Route("POST", "/predict", predict, "Infer with the only model there is.", fast=True),
        Route("POST", "/models/{name}/predict", predict, "Infer with the newest version that is ready.", fast=True),
        Route("POST", "/models/{name}/versions/{version}/predict", predict, "Infer with one version.", fast=True),
        Route("GET", "/livez", health.live, "Whether the process is up."),
        Route("GET", "/readyz", health.ready, "Whether every model is loaded and warmed up."),
        Route("GET", "/metrics", health.metrics, "All metrics as Prometheus text."),
        Route("GET", "/", pages.index, "The models and their state, for people."),
        Route("GET", "/docs", pages.docs, "The routes and formats, for people."),
        Route("GET", "/openapi.json", pages.openapi, "The routes and formats, for programs."),
    )
    table += oip_routes(server) + tf_serving_routes(server)
    pages.describe(table)
    return table

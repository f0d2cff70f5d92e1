"""The pages for people: one of the models and their states, one of the routes.

Links are relative, so that they lead to the right place behind a proxy that serves all of this
under a path of its own. Each model has a page of its own, see `model_page`.
"""

from __future__ import annotations

from html import escape

from twisted.internet.defer import Deferred

from batcher.codecs.format_table import formats_of_requests
from batcher.core.spec import TensorSpec
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.job_table import job_table
from batcher.frontends.endpoints.jobs import Jobs
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.markup import page, table
from batcher.frontends.endpoints.model_page import ModelPage, link_to, state_text
from batcher.frontends.endpoints.openapi.document import CONTENT_ENCODING, REQUEST_ID, document
from batcher.frontends.endpoints.openapi.operations import (
    COMMON_FAILURES,
    INFERENCE_FAILURES,
    INFERENCE_HEADERS,
    NATIVE_FAILURES,
)
from batcher.frontends.endpoints.routing import Route
from batcher.serving.model_version import ModelVersion

_ERROR_NOTE = (
    '<p>Every error body is <code>{"error": "…", "code": "…"}</code>, in MessagePack if that '
    "was asked for; under <code>/v1</code> and <code>/v2</code> it is "
    '<code>{"error": "…"}</code>, and a deadline that passed is a 503.</p>'
)


class Pages:
    """`/`, `/docs`, `/openapi.json` and the pages of models. Reactor thread.

    Attributes:
        model: answers the page of one model.
    """

    def __init__(self, engine: Engine, disclosure: Disclosure, jobs: Jobs | None = None) -> None:
        """Show the models of `engine` and the batch `jobs`, and no routes before `show`.

        `disclosure` says how much of the reasons clients read why a model is not ready.
        """
        self._engine = engine
        self._jobs = jobs
        self._disclosure = disclosure
        self._routes: tuple[Route, ...] = ()
        self.model = ModelPage(engine, disclosure)

    def show(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        """Show and return `routes`, from now on: a table that has these pages as endpoints."""
        self._routes = routes
        return routes

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer the page of models. Reactor thread."""
        titles = ("model", "state", "takes", "gives", "formats", "device")
        request_id = call.head.request_id
        rows = (self._model_row(each, request_id) for each in self._engine)
        models = table(titles, rows)
        paths = ("docs", "openapi.json", "readyz", "metrics")
        links = " · ".join(f'<a href="{path}">/{path}</a>' for path in paths)
        return page("Models", f"{models}{job_table(self._jobs)}<p>{links}</p>")

    def docs(self, call: Call) -> Deferred[Reply]:
        """Answer the page of routes. Reactor thread."""
        routes = _route_table(self._routes)
        models = '<p><a href="./">models</a></p>'
        return page("Routes", f"{routes}{_header_table()}{_status_table()}{_ERROR_NOTE}{models}")

    def openapi(self, call: Call) -> Deferred[Reply]:
        """Answer the OpenAPI document. Reactor thread."""
        return json_reply(document(self._routes))

    def _model_row(self, version: ModelVersion, request_id: bytes | None) -> tuple[str, ...]:
        spec, link = version.spec, link_to(self._engine, version)
        return (
            f'<a href="{link}"><code>{escape(version.title)}</code></a>',
            escape(state_text(version, self._disclosure, request_id)),
            _tensors(spec.inputs),
            _tensors(spec.outputs),
            escape(", ".join(entry.title for entry in formats_of_requests(spec))),
            escape(version.settings.device),
        )


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return "<br>".join(escape(f"{tensor.name} {tensor.describe()}") for tensor in tensors)


def _route_table(routes: tuple[Route, ...]) -> str:
    rows = (
        (f"<code>{route.method} {escape(route.pattern)}</code>", escape(route.summary))
        for route in routes
    )
    return table(("route", "what"), rows)


def _header_table() -> str:
    headers = [(header["name"], header["description"]) for header in (REQUEST_ID, CONTENT_ENCODING)]
    headers += [(name, text) for name, _, text in INFERENCE_HEADERS]
    rows = ((f"<code>{name}</code>", escape(text)) for name, text in headers)
    return table(("request header", "what"), rows)


def _status_table() -> str:
    texts = {
        **COMMON_FAILURES,
        405: "Wrong method; see Allow.",
        **INFERENCE_FAILURES,
        **NATIVE_FAILURES,
    }
    rows = ((str(status), escape(text)) for status, text in sorted(texts.items()))
    return table(("status", "when"), rows)

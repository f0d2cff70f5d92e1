"""The pages for people: one of the models and their states, one of the routes.

The pages are plain HTML that loads nothing from elsewhere. Their links are relative, so that they
lead to the right place behind a proxy that serves all of this under a path of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from twisted.internet.defer import Deferred, succeed

from batcher import __version__
from batcher.codecs.format_table import formats_of_requests
from batcher.core.spec import TensorSpec
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.openapi.document import CONTENT_ENCODING, REQUEST_ID, document
from batcher.frontends.endpoints.openapi.operations import (
    COMMON_FAILURES,
    INFERENCE_FAILURES,
    INFERENCE_HEADERS,
    NATIVE_FAILURES,
)
from batcher.frontends.endpoints.routing import Route
from batcher.serving.model_version import ModelVersion

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;width:100%}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "code{background:#f3f3f3;padding:0 .2rem}"
    "@media(prefers-color-scheme:dark)"
    "{body{background:#181818;color:#ddd}code{background:#2a2a2a}a{color:#8bf}}"
)

_ERROR_NOTE = (
    '<p>Every error body is <code>{"error": "…", "code": "…"}</code>, in MessagePack if that '
    "was asked for; under <code>/v1</code> and <code>/v2</code> it is "
    '<code>{"error": "…"}</code>, and a deadline that passed is a 503.</p>'
)


class Pages:
    """`/`, `/docs` and `/openapi.json`. Reactor thread."""

    def __init__(self, engine: Engine, disclosure: Disclosure) -> None:
        """Show the models of `engine`, and no routes before `show`.

        `disclosure` says how much of the reasons clients read why a model is not ready.
        """
        self._engine = engine
        self._disclosure = disclosure
        self._routes: tuple[Route, ...] = ()

    def show(self, routes: tuple[Route, ...]) -> None:
        """Show `routes` from now on: a table that has these pages as endpoints."""
        self._routes = routes

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer the page of models. Reactor thread."""
        titles = ("model", "state", "takes", "gives", "formats", "device")
        request_id = call.head.request_id
        rows = (_model_row(each, self._state(each, request_id)) for each in self._engine)
        models = _table(titles, rows)
        paths = ("docs", "openapi.json", "readyz", "metrics")
        links = " · ".join(f'<a href="{path}">/{path}</a>' for path in paths)
        return _page("Models", f"{models}<p>{links}</p>")

    def _state(self, version: ModelVersion, request_id: bytes | None) -> str:
        return self._disclosure.part(version.status_text, version.public_text, request_id).text

    def docs(self, call: Call) -> Deferred[Reply]:
        """Answer the page of routes. Reactor thread."""
        routes = _route_table(self._routes)
        models = '<p><a href="./">models</a></p>'
        return _page("Routes", f"{routes}{_header_table()}{_status_table()}{_ERROR_NOTE}{models}")

    def openapi(self, call: Call) -> Deferred[Reply]:
        """Answer the OpenAPI document. Reactor thread."""
        return json_reply(document(self._routes))


def _model_row(version: ModelVersion, state: str) -> tuple[str, ...]:
    spec = version.spec
    return (
        f"<code>{escape(version.title)}</code>",
        escape(state),
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
    return _table(("route", "what"), rows)


def _header_table() -> str:
    headers = [(header["name"], header["description"]) for header in (REQUEST_ID, CONTENT_ENCODING)]
    headers += [(name, text) for name, _, text in INFERENCE_HEADERS]
    rows = ((f"<code>{name}</code>", escape(text)) for name, text in headers)
    return _table(("request header", "what"), rows)


def _status_table() -> str:
    texts = {
        **COMMON_FAILURES,
        405: "Wrong method; see Allow.",
        **INFERENCE_FAILURES,
        **NATIVE_FAILURES,
    }
    rows = ((str(status), escape(text)) for status, text in sorted(texts.items()))
    return _table(("status", "when"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def _page(title: str, body: str) -> Deferred[Reply]:
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>batcher: {title}</title><style>{_STYLE}</style><h1>{title}</h1>{body}"
        f"<footer>batcher {__version__}</footer>"
    )
    return succeed(Reply(200, b"text/html; charset=utf-8", text.encode()))

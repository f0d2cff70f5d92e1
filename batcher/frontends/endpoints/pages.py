"""The pages for people: models and their state, routes and formats.

Plain HTML that loads nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from twisted.internet.defer import Deferred, succeed

from batcher import __version__
from batcher.codecs.format_table import formats_for
from batcher.codecs.formats.json_lists import to_json
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.openapi.document import CONTENT_ENCODING, REQUEST_ID, document
from batcher.frontends.endpoints.openapi.operations import ALWAYS, HEADERS, INFERENCE, NATIVE
from batcher.frontends.endpoints.routing import Route
from batcher.serving.model_version import ModelVersion
from batcher.serving.server import ModelServer

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 "
    "1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;width:100%}td,th{border-bottom:1px solid "
    "#ccc;padding:.3rem .6rem;"
    "text-align:left;vertical-align:top}code{background:#f3f3f3;padding:0 .2rem}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}code{background:#2a2a2a}a{color:#8bf}}"
)


class Pages:
    """`/`, `/docs` and `/openapi.json`."""

    def __init__(self, server: ModelServer) -> None:
        """Show `server`; `describe` gives the routes."""
        self._server = server
        self._routes: tuple[Route, ...] = ()

    def describe(self, routes: tuple[Route, ...]) -> None:
        """Show `routes`, of which these pages are a part."""
        self._routes = routes

    def index(self, call: Call) -> Deferred[Reply]:
        """Answer the page of models. Reactor thread."""
        models = _table(
            ("model", "state", "takes", "gives", "formats", "device"), map(_model_row, self._server)
        )
        links = " · ".join(
            f'<a href="{path}">{path}</a>'
            for path in ("/docs", "/openapi.json", "/readyz", "/metrics")
        )
        return _page("Models", f"{models}<p>{links}</p>")

    def docs(self, call: Call) -> Deferred[Reply]:
        """Answer the page of routes. Reactor thread."""
        routes = _table(
            ("route", "what"),
            (
                (f"<code>{route.method} {escape(route.pattern)}</code>", escape(route.summary))
                for route in self._routes
            ),
        )
        fields = [
            (header["name"], header["description"]) for header in (REQUEST_ID, CONTENT_ENCODING)
        ]
        fields += [(name, text) for name, _, text in HEADERS]
        headers = _table(
            ("request header", "what"),
            ((f"<code>{name}</code>", escape(text)) for name, text in fields),
        )
        statuses = sorted(
            {**ALWAYS, 405: "Wrong method; see Allow.", **INFERENCE, **NATIVE}.items()
        )
        errors = _table(
            ("status", "when"), ((str(status), escape(text)) for status, text in statuses)
        )
        note = (
            '<p>Every error body is <code>{"error": "…", "code": "…"}</code>, in MessagePack if '
            "that was asked for; under "
            '<code>/v1</code> and <code>/v2</code> it is <code>{"error": "…"}</code>, and a '
            "deadline that passed is a 503.</p>"
        )
        return _page("Routes", f'{routes}{headers}{errors}{note}<p><a href="/">models</a></p>')

    def openapi(self, call: Call) -> Deferred[Reply]:
        """Answer the OpenAPI document. Reactor thread."""
        return succeed(Reply(200, b"application/json", to_json(document(self._routes))))


def _model_row(served: ModelVersion) -> tuple[str, ...]:
    spec = served.spec
    formats = ", ".join(entry.media_type for entry in formats_for(spec.inputs))
    detail = f": {served.detail}" if served.detail else ""
    return (
        f"<code>{escape(served.title)}</code>",
        escape(served.state.value + detail),
        "<br>".join(escape(f"{tensor.name} {tensor.describe()}") for tensor in spec.inputs),
        "<br>".join(escape(f"{tensor.name} {tensor.describe()}") for tensor in spec.outputs),
        escape(formats),
        escape(served.settings.device),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def _page(title: str, body: str) -> Deferred[Reply]:
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width">'
        "<title>batcher: "
        f"{title}</title><style>{_STYLE}</style><h1>{title}</h1>{body}<footer>batcher "
        f"{__version__}</footer>"
    )
    return succeed(Reply(200, b"text/html; charset=utf-8", text.encode()))

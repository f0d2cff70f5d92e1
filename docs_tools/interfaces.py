"""The reference of what programs meet: routes, metrics and commands."""

from __future__ import annotations

import re
from pathlib import Path

import click
from prometheus_client.metrics_core import Metric
from twisted.internet.task import Clock

import batcher
from batcher.app.cli import main
from batcher.codecs.format_table import FORMATS
from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.openapi.document import CONTENT_ENCODING, REQUEST_ID
from batcher.frontends.endpoints.openapi.operations import (
    COMMON_FAILURES,
    INFERENCE_FAILURES,
    INFERENCE_HEADERS,
    NATIVE_FAILURES,
)
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.table import routes
from batcher.serving.metrics import ServerMetrics
from batcher.serving.repository.repository import ModelRepository
from batcher.serving.server import ModelServer
from docs_tools.docstrings import table

_EVERY_ROUTE = ServerSettings(
    sagemaker=True,
    torchserve=True,
    vertex_health_route="/health",
    vertex_predict_route="/predict-vertex",
)
_WHERE = {
    "/ping": "where `sagemaker` is set",
    "/invocations": "where `sagemaker` is set",
    "/predictions/{name}": "where `torchserve` is set",
    "/predictions/{name}/{version}": "where `torchserve` is set",
    "/models": "where `torchserve` is set",
    "/health": "where `vertex_health_route` is set, on that path",
    "/predict-vertex": "where `vertex_predict_route` is set, on that path",
}
_NOT_SERVED = "Not served: 501."
_KINDS = {"counter": "counter", "gauge": "value", "histogram": "histogram"}


def all_routes() -> tuple[Route, ...]:
    """Return every route that a server can have."""
    clock = Clock()
    server = ModelServer(clock, lambda *_: None, _EVERY_ROUTE)
    repository = ModelRepository(server, _EVERY_ROUTE, Path())
    return routes(server, repository, _EVERY_ROUTE, disclosure_of(_EVERY_ROUTE, clock.seconds))


def routes_page() -> str:
    """Return the page of routes."""
    served = [route for route in all_routes() if route.summary != _NOT_SERVED]
    refused = [route for route in all_routes() if route.summary == _NOT_SERVED]
    rows = [(_title(route), route.summary, _WHERE.get(route.pattern, "always")) for route in served]
    formats = [
        (f"`{each.media_type}`", ", ".join(f"`{alias}`" for alias in each.aliases), _answers(each))
        for each in FORMATS
    ]
    headers = [
        (f"`{each['name']}`", each["description"]) for each in (REQUEST_ID, CONTENT_ENCODING)
    ]
    headers += [(f"`{name}`", text) for name, _, text in INFERENCE_HEADERS]
    failures = {
        **COMMON_FAILURES,
        405: "Wrong method; see `Allow`.",
        **INFERENCE_FAILURES,
        **NATIVE_FAILURES,
    }
    statuses = [(str(status), text) for status, text in sorted(failures.items())]
    return f"""# Every route

A server that runs has the same list on its page `/docs`, and for programs in `/openapi.json`.
[Requests and answers](../requests.md) explains bodies, headers and errors with examples.

{table(("route", "what", "there"), rows)}
These routes of the Open Inference Protocol answer 501, with what the server has instead:
{", ".join(map(_title, refused))}.

Over gRPC, where `grpc_port` is set: {_grpc_calls()} of `inference.GRPCInferenceService`,
`grpc.health.v1.Health` and server reflection. Over [ZeroMQ](../zeromq.md), where `zeromq` is set:
inferences with raw tensors, and every route above that is read by `GET` or infers by `POST`.

## Formats

The body's format is its `Content-Type`. A model refuses formats that cannot carry its tensors.

{table(("media type", "also called", "answers in it"), formats)}
## Request headers

{table(("header", "what"), headers)}
## Statuses of errors

{table(("status", "when"), statuses)}"""


def _title(route: Route) -> str:
    return f"`{route.method} {route.pattern}`"


def _grpc_calls() -> str:
    """Return the calls that are served. The sources are read: gRPC is an extra."""
    folder = Path(batcher.__file__).parent / "frontends" / "grpc"
    calls = re.findall(
        r"^  rpc (\w+)", (folder / "_generated/grpc_service.proto").read_text(), re.M
    )
    source = (folder / "service.py").read_text()
    (refused,) = re.findall(r"^NOT_SERVED = \((.*?)^\)", source, re.M | re.S)
    return ", ".join(f"`{call}`" for call in calls if f'"{call}"' not in refused)


def _answers(each: object) -> str:
    return "yes" if getattr(each, "encode", None) is not None else "no"


def metrics_page() -> str:
    """Return the page of metrics."""
    families = list(ServerMetrics().collect())
    return f"""# Every metric

`GET /metrics` has these, and those of the process that the Prometheus library adds (`process_…`,
`python_…`). [Watching the server](../metrics.md) says what to look at, and what the values of
labels mean.

{table(("metric", "kind", "labels", "what"), map(_metric, families))}"""


def _metric(family: Metric) -> tuple[str, ...]:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
    return f"`{name}`", _KINDS[family.type], labels, family.documentation


def commands_page() -> str:
    """Return the page of commands."""
    parts = [
        "# Every command\n",
        "`batcher` is `.venv/bin/batcher` in a checkout. `python serve.py` is the same as "
        "`batcher serve`.\n",
    ]
    root = click.Context(main, info_name="batcher")
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        parts.append(_command(command, click.Context(command, info_name=name, parent=root)))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> str:
    usage = f"batcher {context.info_name} {' '.join(command.collect_usage_pieces(context))}"
    help_text = "\n\n".join(
        " ".join(part.split()) for part in (command.help or "").replace("\b", "").split("\n\n")
    )
    records = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None
    ]
    options = table(("option", "what"), [(f"`{form}`", text) for form, text in records])
    return f"## `batcher {context.info_name}`\n\n`{usage}`\n\n{help_text}\n\n{options}"

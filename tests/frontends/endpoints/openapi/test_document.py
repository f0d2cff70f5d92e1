"""The document for programs and the pages for people name every route and every tensor."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import urljoin

import pytest

from batcher.errors import ModelLoadError
from tests.frontends.endpoints.test_formats import picture_model
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor

Both = Callable[[MemoryServer, bytes], Answer]


def described(both: Both, server: MemoryServer) -> dict[str, Any]:
    document: dict[str, Any] = both(server, ask("/openapi.json")).decoded()
    return document


def test_the_document_names_every_route_and_no_other(both: Both) -> None:
    server = MemoryServer(picture_model())
    document = described(both, server)
    named = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert named == {(route.method, route.pattern) for route in server.router.routes}
    assert len(named) >= 9
    assert document["openapi"].startswith("3.")


def test_every_route_of_the_document_is_served(both: Both) -> None:
    server = MemoryServer(picture_model())
    for path, methods in described(both, server)["paths"].items():
        for method in methods:
            values = {"name": "m", "version": "1", "label": "1", "region": "r", "id": "job-1"}
            target = path.format(**values)
            answer = (
                both(server, ask(target, b"", method=method.upper()))
                if path != "/metrics"
                else None
            )
            assert answer is None or answer.status not in (404, 405), (method, path)
            assert answer is None or str(answer.status) in methods[method]["responses"], (
                method,
                path,
            )


def test_parameters_in_a_path_are_declared(both: Both) -> None:
    for path, methods in described(both, MemoryServer())["paths"].items():
        for operation in methods.values():
            declared = {entry["name"] for entry in operation["parameters"] if entry["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert operation["summary"]


def test_inference_routes_tell_their_formats_headers_and_every_status_of_an_error(
    both: Both,
) -> None:
    operation = described(both, MemoryServer(picture_model()))["paths"]["/models/{name}/predict"][
        "post"
    ]
    content = operation["requestBody"]["content"]
    assert {
        "application/json",
        "application/msgpack",
        "application/octet-stream",
        "application/x-npy",
        "text/csv",
    } <= set(content)
    assert {"image/png", "image/jpeg", "multipart/form-data"} <= set(content)
    answered = operation["responses"]["200"]["content"]
    assert "image/png" not in answered
    assert "application/json" in answered
    headers = {entry["name"] for entry in operation["parameters"] if entry["in"] == "header"}
    assert headers == {
        "X-Request-Id",
        "X-Timeout-Ms",
        "X-Priority",
        "X-Timing",
        "X-Route-Key",
        "Idempotency-Key",
        "Cache-Control",
        "X-Api-Key",
        "Content-Encoding",
    }
    statuses = [
        "200",
        "400",
        "404",
        "406",
        "408",
        "413",
        "414",
        "415",
        "422",
        "429",
        "431",
        "500",
        "501",
        "502",
        "503",
        "504",
    ]
    assert list(operation["responses"]) == statuses
    assert set(operation["responses"]["400"]["content"]) == {
        "application/json",
        "application/msgpack",
    }
    assert set(operation["responses"]["503"]["headers"]) == {
        "Cache-Control",
        "X-Content-Type-Options",
        "X-Request-Id",
        "Retry-After",
    }


def test_tensors_are_described_with_their_sizes(both: Both) -> None:
    document = described(both, MemoryServer(picture_model()))
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    model, by_row = content["application/json"]["schema"]["anyOf"]
    image = model["properties"]["inputs"]["properties"]["image"]
    assert image["description"] == "FP32[-1,1,8,8]"
    assert "maxItems" not in image, "rows are free"
    assert (image["items"]["maxItems"], image["items"]["items"]["maxItems"]) == (1, 8)
    assert "instances" in by_row["properties"]


def test_numbers_may_be_null_in_answers_alone(both: Both) -> None:
    operation = described(both, MemoryServer())["paths"]["/predict"]["post"]
    request = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"][0][
        "properties"
    ]["inputs"]["properties"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"][0][
        "properties"
    ]["outputs"]["properties"]
    assert request["x"]["items"]["items"] == {"type": "number"}
    assert answer["y"]["items"]["items"] == {"type": ["number", "null"]}


def test_routes_of_clouds_take_every_format_and_tell_their_errors(both: Both) -> None:
    paths = described(both, MemoryServer(sagemaker=True))["paths"]
    operation = paths["/invocations"]["post"]
    assert set(operation["requestBody"]["content"]) == set(
        paths["/predict"]["post"]["requestBody"]["content"]
    )
    assert "406" in operation["responses"]
    assert "504" not in operation["responses"], "it is a 503, as TensorFlow Serving has it"
    assert paths["/ping"]["get"]["responses"] == paths["/readyz"]["get"]["responses"]


def test_a_tensor_may_have_any_name(both: Both) -> None:
    model = RecordingModel(model_spec(inputs=(tensor("required"),)))
    assert "required" in str(described(both, MemoryServer(model))["paths"]["/predict"])


def test_references_in_the_document_lead_somewhere(both: Both) -> None:
    document = described(both, MemoryServer())

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for inner in value.values() for found in references(inner)]
        return (
            [found for inner in value for found in references(inner)]
            if isinstance(value, list)
            else []
        )

    found = references(document)
    assert found
    for reference in found:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere(both: Both, page: str) -> None:
    text = both(MemoryServer(), ask(page)).body.decode()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert text.lower().startswith("<!doctype html>")


@pytest.mark.parametrize("prefix", ["", "/ml", "/a/b"])
def test_links_lead_to_our_routes_also_under_a_path_that_a_proxy_adds(prefix: str) -> None:
    server, base = MemoryServer(), f"https://example.org{prefix}"
    for page in ("/", "/docs"):
        links = re.findall(r'href="([^"]+)"', over_connection(server, ask(page)).body.decode())
        assert links
        for link in links:
            target = urljoin(f"{base}{page}", link)
            assert target.startswith(f"{base}/")
            assert over_connection(server, ask(target.removeprefix(base))).status == 200
    document = over_connection(server, ask("/openapi.json")).decoded()
    urls = [urljoin(f"{base}/openapi.json", entry["url"]) for entry in document["servers"]]
    assert urls == [f"{base}/"]


def test_the_page_of_models_tells_what_each_takes_and_how_it_is(both: Both) -> None:
    server = MemoryServer(picture_model(), expose_errors=True)
    server.add(RecordingModel(model_spec(name="loading")))
    server.add(RecordingModel(model_spec(name="broken"))).loaded.errback(
        ModelLoadError("no <such> file")
    )
    text = both(server, ask("/")).body.decode()
    for expected in (
        "m/1",
        "ready",
        "FP32[-1,1,8,8]",
        "image/png",
        "loading/1",
        "broken/1",
        "failed",
        "no &lt;such&gt; file",
    ):
        assert expected in text
    assert "<such>" not in text


def test_the_page_of_routes_names_every_route_header_and_status(both: Both) -> None:
    server = MemoryServer()
    text = both(server, ask("/docs")).body.decode()
    for route in server.router.routes:
        assert f"{route.method} {route.pattern}" in text
        assert escape(route.summary) in text
    for expected in ("X-Request-Id", "X-Timeout-Ms", "X-Priority", "X-Timing", "503", "504"):
        assert expected in text


def test_a_models_name_cannot_bring_markup_into_a_page(both: Both) -> None:
    text = both(MemoryServer(RecordingModel(model_spec(name="<script>"))), ask("/")).body.decode()
    assert "<script>" not in text

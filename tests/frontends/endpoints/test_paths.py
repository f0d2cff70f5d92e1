"""Paths as a proxy reads them: what a guard in front takes for another path has no route."""

from __future__ import annotations

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Site

from batcher.frontends.web.klein_app import klein_app
from tests.frontends.endpoints.conftest import Both
from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import KINDS

FAST = "/models/m/predict"
PAGES = ("/livez", "/metrics", "/v2/health/ready", "/v2/models/m", "/v1/models/m")


def others(path: str) -> list[str]:
    """Return paths that a proxy takes for others than `path`, and that some servers do not."""
    segments = path[1:].split("/")
    encoded = f"%{ord(segments[0][0]):02X}{segments[0][1:]}"
    return [
        f"/{path}",
        f"//{path}",
        f"{path}/",
        f"{path}//",
        f"/%2F{path[1:]}",
        f"/%2f{path[1:]}",
        f"{path}%2F",
        f"/.{path}",
        f"/x/..{path}",
        f"/x/%2e%2e{path}",
        f"/%5C{path[1:]}",
        "/" + "/".join([encoded, *segments[1:]]),
        *([f"/{'%2F'.join(segments)}", f"/{'//'.join(segments)}"] if segments[1:] else []),
    ]


@pytest.mark.parametrize("target", [each for path in PAGES for each in others(path)])
def test_another_path_than_that_of_a_page_gets_404(both: Both, target: str) -> None:
    assert both(MemoryServer(), ask(target)).status == 404


@pytest.mark.parametrize("path", ["/predict", FAST, "/v2/models/m/infer", "/v1/models/m:predict"])
def test_another_path_than_that_of_inference_gets_404(both: Both, path: str) -> None:
    server = MemoryServer()
    for target in others(path):
        assert both(server, ask(target, ROW)).status == 404
    assert server.model.batches == []


@pytest.mark.parametrize("path", ["//livez", "/%2Flivez", "//predict", "//"])
@pytest.mark.parametrize("method", ["DELETE", "HEAD", "OPTIONS"])
def test_another_path_has_no_route_for_any_method(both: Both, path: str, method: str) -> None:
    assert both(MemoryServer(), ask(path, method=method)).status == 404


@pytest.mark.parametrize("path", ["//livez", "/%2Flivez"])
def test_another_path_gets_404_in_absolute_form_too(path: str) -> None:
    server = MemoryServer()
    client = server.connect(KINDS[0])
    client.send(ask(f"http://batcher.test{path}"))
    server.turn()
    assert [answer.status for answer in client.answers] == [404]


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_a_colon_may_be_encoded_as_many_clients_do(both: Both, colon: str) -> None:
    body = b'{"instances": [[1, 2, 3, 4]]}'
    request = ask(f"/v1/models/m{colon}predict", body, content_type="application/json")
    assert both(MemoryServer(), request).status == 200


def test_a_name_may_be_encoded(both: Both) -> None:
    assert both(MemoryServer(), ask("/models/%6D/predict", ROW)).status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [("/ml/livez", 200), ("/ml//livez", 404), ("/ml/%2Flivez", 404)],
)
def test_routes_below_another_resource_of_twisted_web_are_found_as_strictly(
    target: str, status: int
) -> None:
    server = MemoryServer()
    root = Resource()
    root.putChild(b"ml", klein_app(server.router, 1000).resource())
    server.front.site = Site(root, reactor=server.clock)
    server.router.only_klein = True
    client = server.connect(KINDS[0])
    client.send(ask(target))
    server.turn()
    assert [answer.status for answer in client.answers] == [status]

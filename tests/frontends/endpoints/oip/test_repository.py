"""The model repository extension over both stacks, where clients load and unload models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from batcher.batching.batch import Batch
from batcher.errors import ModelLoadError
from batcher.models.checked import CheckedModel
from batcher.workers.memory import MemoryWorker
from tests.frontends.endpoints.conftest import MORE, Both
from tests.frontends.endpoints.oip.test_infer import INFER, error, json_request
from tests.serving.repository.test_repository import write
from tests.support.http import MemoryServer, ask
from tests.support.models import RecordingModel, model_spec

INDEX = "/v2/repository/index"
LOAD, UNLOAD = "/v2/repository/models/m/load", "/v2/repository/models/m/unload"


@pytest.fixture
def server(tmp_path: Path) -> MemoryServer:
    """Return a server with the model `m` on disk and loaded.

    Others may be loaded, and are ready at once.
    """
    write(tmp_path / "models/m/1")
    server = MemoryServer(base=tmp_path, model_control="explicit", control_hosts=["batcher.test"])
    server.repository.load("m", {})
    return server


class PromptWorker(MemoryWorker):
    """Runs each batch on the next turn of the loop."""

    def do(self, batch: Batch) -> None:
        super().do(batch)
        self._clock.callLater(0, self.perform)


@pytest.fixture(autouse=True)
def _prompt_workers() -> Iterator[None]:
    def worker(*arguments: Any) -> PromptWorker:
        return PromptWorker(CheckedModel(RecordingModel()), arguments[1].clock)

    with patch("batcher.workers.making.InferenceThread", worker):
        yield


def index(both: Both, server: MemoryServer, body: bytes = b"") -> list[tuple[str, ...]]:
    """Return the values of each entry of the index."""
    entries = json.loads(both(server, ask(INDEX, body, method="POST")).body)
    return [tuple(entry.values()) for entry in entries]


def test_a_model_is_unloaded_and_loaded(both: Both, server: MemoryServer) -> None:
    answer = both(server, ask(UNLOAD, b'{"parameters":{"unload_dependents":false}}'))
    assert (answer.status, answer.body) == (200, b"")
    assert index(both, server) == [("m", "1", "UNAVAILABLE", "unloaded")]
    assert index(both, server, b'{"ready":true}') == []
    assert "unloaded" in error(both(server, json_request()), 503)
    assert "unloaded" in error(both(server, ask("/v2/models/m/ready", b"", method="GET")), 503)
    assert both(server, ask("/v2/health/ready", b"", method="GET")).status == 200, (
        "nobody misses it"
    )
    for body in (b"", b"{}"):
        assert (both(server, ask(LOAD, body, method="POST")).status, index(both, server)) == (
            200,
            [("m", "1", "READY")],
        )
    assert both(server, json_request()).status == 200


def test_what_is_on_disk_and_not_loaded_is_listed(
    both: Both, server: MemoryServer, tmp_path: Path
) -> None:
    write(tmp_path / "models/n/2")
    assert index(both, server) == [("m", "1", "READY"), ("n", "2", "UNAVAILABLE", "not loaded")]
    assert both(server, ask("/v2/repository/models/n/load", b"{}")).status == 200
    assert index(both, server, b'{"ready":true}') == [("m", "1", "READY"), ("n", "2", "READY")]


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/v2/repository/models/other/load", "{}", 404),
        ("/v2/repository/models/other/unload", "{}", 404),
        (LOAD, '{"parameters":{"file:1/net.py":"cHJpbnQoKQ=="}}', 400),
        (LOAD, '{"parameters":{"config":"{"}}', 400),
        (LOAD, '{"parameters":3}', 400),
        (LOAD, "[]", 400),
        (LOAD, "{", 400),
        (UNLOAD, "[]", 400),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    both: Both, server: MemoryServer, target: str, body: str, status: int
) -> None:
    before = index(both, server)
    error(both(server, ask(target, body.encode())), status)
    assert index(both, server) == before
    assert both(server, json_request(INFER)).status == 200


def test_parameters_that_are_no_object_are_refused(both: Both, server: MemoryServer) -> None:
    for value in ("[]", '""', "0", "false"):
        assert "parameters" in error(
            both(server, ask(LOAD, f'{{"parameters":{value}}}'.encode())), 400
        )
    assert both(server, ask(LOAD, b'{"parameters":null}')).status == 200


class TestRepository:
    def test_it_lists_every_version_with_its_state(self, both: Both) -> None:
        server = MemoryServer(RecordingModel())
        server.add(RecordingModel(model_spec(name="late")))
        server.add(RecordingModel(model_spec(name="broken"))).loaded.errback(
            ModelLoadError("no weights")
        )
        ready = {"name": "m", "version": "1", "state": "READY"}
        listed = both(server, ask("/v2/repository/index", method="POST")).decoded()
        assert listed[0] == ready
        assert [(entry["name"], entry["state"]) for entry in listed[1:]] == [
            ("late", "LOADING"),
            ("broken", "UNAVAILABLE"),
        ]
        assert listed[2]["reason"] == f"failed{MORE}"
        assert both(server, ask("/v2/repository/index", b'{"ready":true}')).decoded() == [ready]

    @pytest.mark.parametrize("body", [b"[]", b'{"ready": 1}', b"{", b"null"])
    def test_a_body_that_is_none_is_refused(self, both: Both, body: bytes) -> None:
        assert "expected" in error(both(MemoryServer(), ask("/v2/repository/index", body)), 400)

    @pytest.mark.parametrize("verb", ["load", "unload"])
    def test_it_cannot_be_changed(self, both: Both, verb: str) -> None:
        assert "model_control: explicit" in error(
            both(MemoryServer(), ask(f"/v2/repository/models/m/{verb}", b"{}")), 403
        )

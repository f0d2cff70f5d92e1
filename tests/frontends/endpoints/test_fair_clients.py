"""What a request has the CPU pool do is charged to its client, on every route."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batcher.core.copied_bytes import LARGE_BYTES
from tests.support.codec_inputs import encoded, picture_spec, pixels
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.models import RecordingModel, model_spec, rows, tensor

PEER = "192.0.2.7"
JSON = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()


def charged(server: MemoryServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the clients whose tasks the pool of `server` runs from now on."""
    clients: list[str] = []
    put = server.server.pools.cpu._queue.put

    def recorded(task: Any) -> None:
        clients.append(task.client)
        put(task)

    monkeypatch.setattr(server.server.pools.cpu._queue, "put", recorded)
    return clients


@pytest.mark.parametrize(
    "request_of_hooks",
    [
        ask("/predict", rows(1.0).tobytes()),
        ask("/v2/models/m/infer", JSON),
        ask("/v2/models/m/infer", JSON, ("Accept-Encoding", "gzip")),
        ask("/v1/models/m:predict", b'{"instances": [[1, 2, 3, 4]]}'),
    ],
    ids=["native", "open inference", "compressed", "tensorflow"],
)
def test_hooks_are_charged_to_the_client(
    request_of_hooks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RecordingModel()
    model.preprocess = model.postprocess = dict
    server = MemoryServer(model)
    clients = charged(server, monkeypatch)
    assert over_connection(server, request_of_hooks).status == 200
    assert len(clients) >= 2
    assert set(clients) == {PEER}


def test_pictures_are_charged_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer(RecordingModel(picture_spec((3, 4, 6)), lambda inputs: {"y": rows(1.0)}))
    clients = charged(server, monkeypatch)
    picture = encoded(pixels())
    assert over_connection(server, ask("/predict", picture, content_type="image/png")).status == 200
    assert clients == [PEER]


def test_a_model_without_work_for_the_pool_charges_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MemoryServer()
    clients = charged(server, monkeypatch)
    assert over_connection(server, ask("/v2/models/m/infer", JSON)).status == 200
    assert clients == []


@pytest.mark.parametrize(("size", "tasks"), [(LARGE_BYTES - 1, []), (LARGE_BYTES, [PEER])])
def test_a_large_file_is_copied_on_the_pool_and_charged_to_the_client(
    size: int, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[bytes] = []

    def predict(inputs: Any) -> Any:
        taken.extend(inputs["x"].ravel())
        return {"y": rows(1.0)}

    spec = model_spec(inputs=(tensor("x", "BYTES", (1,)),))
    server = MemoryServer(RecordingModel(spec, predict))
    clients = charged(server, monkeypatch)
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert over_connection(server, ask("/predict", body, content_type="audio/wav")).status == 200
    assert taken[-1] == body
    assert clients == tasks

"""The routes of the Open Inference Protocol, as their clients use them, over both stacks."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.errors import ModelLoadError
from tests.frontends.endpoints.conftest import MORE
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, rows, tensor

Both = Callable[[MemoryServer, bytes], Answer]
INFER = "/v2/models/m/infer"
JSON = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
BINARY = {
    "inputs": [
        {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    ],
    "parameters": {"binary_data_output": True},
}


def json_request(target: str = INFER, *headers: tuple[str, str], **members: Any) -> bytes:
    """Return a request with a JSON tensor."""
    return ask(target, json.dumps(JSON | members).encode(), *headers, content_type="")


def binary_request(*headers: tuple[str, str]) -> bytes:
    """Return a request with a binary tensor, as clients of other servers send it.

    Without a content type.
    """
    head = json.dumps(BINARY).encode()
    length = ("Inference-Header-Content-Length", str(len(head)))
    return ask(INFER, head + rows(1.0).tobytes(), length, *headers, content_type="")


def scores(answer: Answer) -> list[float]:
    """Return the tensor behind the JSON of a binary answer."""
    length = int(dict(answer.fields)["inference-header-content-length"])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(answer.body) - length}
    return np.frombuffer(answer.body[length:], "<f4").tolist()


def error(answer: Answer, status: int) -> str:
    """Return the text of an error, which is all that its body holds."""
    assert (answer.status, dict(answer.fields)["content-type"]) == (status, "application/json")
    text = json.loads(answer.body)
    assert list(text) == ["error"]
    return str(text["error"])


def test_a_json_tensor_is_answered_with_one(both: Both) -> None:
    answer = both(MemoryServer(), json_request(id="a"))
    assert dict(answer.fields)["content-type"] == "application/json"
    assert answer.decoded() == {
        "id": "a",
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2, 2, 2, 2]}],
    }


def test_a_binary_tensor_is_answered_with_one(both: Both) -> None:
    answer = both(MemoryServer(), binary_request())
    assert dict(answer.fields)["content-type"] == "application/octet-stream"
    assert scores(answer) == [2, 2, 2, 2]


def test_an_answer_that_finds_no_place_to_be_compressed_in_asks_for_no_repeat() -> None:
    server = MemoryServer()
    server.server.pools.cpu._queue.items = 10**9
    answer = over_connection(server, binary_request(("Accept-Encoding", "gzip")))
    assert error(answer, 503).startswith("the CPU pool is full")
    assert server.models[0].sizes() == [1]
    assert "retry-after" not in dict(answer.fields)


def test_a_body_without_json_is_one_row(both: Both) -> None:
    request = ask(INFER, rows(3.0).tobytes(), ("Inference-Header-Content-Length", "0"))
    assert scores(both(MemoryServer(), request)) == [6, 6, 6, 6]


def test_the_same_json_before_other_bytes_gives_other_answers() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    for value in (1.0, 2.0, 3.0):
        client.send(binary_request().replace(rows(1.0).tobytes(), rows(value).tobytes()))
        server.work()
    assert [scores(answer)[0] for answer in client.answers] == [2, 4, 6]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/octet-stream", "text/plain"]
)
def test_the_content_type_does_not_matter(both: Both, content_type: str) -> None:
    request = ask(INFER, json.dumps(JSON).encode(), content_type=content_type)
    assert both(MemoryServer(), request).status == 200


@pytest.mark.parametrize(
    ("coding", "undo"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_an_answer_is_compressed_where_that_is_asked_for(
    both: Both, coding: str, undo: Callable[[bytes], bytes]
) -> None:
    plain = both(MemoryServer(), binary_request())
    answer = both(MemoryServer(), binary_request(("Accept-Encoding", coding)))
    fields = dict(answer.fields)
    assert fields["content-encoding"] == coding
    assert (
        fields["inference-header-content-length"]
        == dict(plain.fields)["inference-header-content-length"]
    )
    assert undo(answer.body) == plain.body


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "", "100000", "9" * 40, "1.0"])
def test_a_length_of_the_json_that_cannot_be_is_refused(both: Both, length: str) -> None:
    request = ask(INFER, json.dumps(JSON).encode(), ("Inference-Header-Content-Length", length))
    assert "Inference-Header-Content-Length" in error(both(MemoryServer(), request), 400)


def test_a_json_part_of_the_whole_body_is_no_binary_request(both: Both) -> None:
    body = json.dumps(JSON).encode()
    answer = both(
        MemoryServer(), ask(INFER, body, ("Inference-Header-Content-Length", str(len(body))))
    )
    assert answer.decoded()["outputs"][0]["data"] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v2/models/other/infer", 404),
        ("/v2/models/m/versions/2/infer", 404),
        ("/v2/models/m/versions/01/infer", 200),
    ],
)
def test_models_and_versions_are_found_by_the_path(both: Both, target: str, status: int) -> None:
    assert both(MemoryServer(), json_request(target)).status == status


def test_what_the_model_does_not_take_is_a_400_that_says_so(both: Both) -> None:
    wrong = {"inputs": [JSON["inputs"][0] | {"shape": [1, 5]}]}
    assert "[-1,4]" in error(both(MemoryServer(), json_request(**wrong)), 400)


def test_a_timeout_that_passes_is_a_503() -> None:
    def slow(inputs: Any) -> Any:
        server.clock.advance(0.2)
        return {"y": inputs["x"]}

    server = MemoryServer(RecordingModel(predict=slow))
    answer = over_connection(server, json_request(parameters={"timeout": 100_000}))
    assert "deadline" in error(answer, 503)


@pytest.mark.parametrize("priority", [0, 1, 3, 5, 10**9])
def test_a_priority_beyond_the_levels_is_the_default(both: Both, priority: int) -> None:
    assert both(MemoryServer(), json_request(parameters={"priority": priority})).status == 200


def test_the_server_tells_what_it_is(both: Both) -> None:
    document = both(MemoryServer(), ask("/v2")).decoded()
    assert document["name"] == "batcher"
    assert {"binary_tensor_data", "classification", "statistics", "model_configuration"} <= set(
        document["extensions"]
    )


def test_a_model_tells_its_versions_and_tensors(both: Both) -> None:
    server = MemoryServer(
        RecordingModel(),
        RecordingModel(model_spec(version="12")),
        RecordingModel(model_spec(version="3")),
    )
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    for target in ("/v2/models/m", "/v2/models/m/versions/3"):
        assert both(server, ask(target)).decoded() == {
            "name": "m",
            "versions": ["1", "3", "12"],
            "platform": "python",
            "inputs": [{"name": "x", **tensor}],
            "outputs": [{"name": "y", **tensor}],
        }


def test_a_models_configuration_has_the_batch_axis_apart(both: Both) -> None:
    document = both(MemoryServer(), ask("/v2/models/m/config")).decoded()
    assert (document["name"], document["max_batch_size"]) == ("m", 64)
    assert document["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert document["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}]


@pytest.mark.parametrize(
    "target",
    ["/v2/models/n/ready", "/v2/models/m/versions/9/ready", "/v2/models/n", "/v2/models/n/config"],
)
def test_what_is_not_there_is_a_404(both: Both, target: str) -> None:
    assert "expected" in error(both(MemoryServer(), ask(target)), 404)


def test_an_unknown_method_is_an_error_of_the_protocol() -> None:
    request = b"BREW /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n\r\n"
    assert "method" in error(over_connection(MemoryServer(), request), 400)


def test_an_input_without_axes_has_one_for_clients_that_need_it(both: Both) -> None:
    server = MemoryServer(
        RecordingModel(model_spec((tensor("x", shape=()),), (tensor("y", shape=()),)))
    )
    document = both(server, ask("/v2/models/m")).decoded()
    assert (document["inputs"][0]["shape"], document["outputs"][0]["shape"]) == ([-1, 1], [-1])
    config = both(server, ask("/v2/models/m/config")).decoded()
    assert (config["input"][0]["dims"], config["output"][0]["dims"]) == ([1], [])


@pytest.mark.parametrize(
    "target", ["/v2/models//ready", "/v2/models/m/versions//ready", "/v2//health/live"]
)
def test_a_path_with_an_empty_segment_is_a_404(both: Both, target: str) -> None:
    error(both(MemoryServer(), ask(target)), 404)


def test_health_follows_the_models(both: Both) -> None:
    server = MemoryServer()
    assert both(server, ask("/v2/health/live")).decoded() == {"live": True}
    assert both(server, ask("/v2/health/ready")).decoded() == {"ready": True}
    assert both(server, ask("/v2/models/m/ready")).decoded() == {"name": "m", "ready": True}
    server.add(RecordingModel(model_spec(name="late"))).loaded.errback(ModelLoadError("no weights"))
    assert f"failed{MORE}" in error(both(server, ask("/v2/health/ready")), 503)
    assert f"failed{MORE}" in error(both(server, ask("/v2/models/late/ready")), 503)
    assert both(server, ask("/v2/health/live")).status == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/logging"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/region/r/status"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("POST", "/v2/models/m/generate"),
        ("POST", "/v2/models/m/versions/1/generate_stream"),
    ],
)
def test_what_is_not_served_says_so(both: Both, method: str, target: str) -> None:
    assert "GET /v2" in error(both(MemoryServer(), ask(target, method=method)), 501)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (ask("/v2/nothing"), 404),
        (ask("/v2/models/m/infer"), 405),
        (ask(INFER, b"x", ("Content-Encoding", "zstd")), 415),
        (ask(INFER, b"x", ("Content-Encoding", "gzip"), ("Accept", "application/msgpack")), 400),
        (ask(INFER, bytes(3000)), 413),
    ],
)
def test_an_error_ahead_of_the_route_looks_like_one_of_it(
    both: Both, request_bytes: bytes, status: int
) -> None:
    assert error(both(MemoryServer(max_body_bytes=2000), request_bytes), status)


def test_many_texts_are_read_and_written_beside_the_loop(both: Both) -> None:
    spec = model_spec(inputs=(tensor("x", "BYTES", ()),), outputs=(tensor("y", "BYTES", ()),))
    count = HEAVY_BYTES // 4
    entry = {
        "name": "x",
        "shape": [count],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": 4 * count},
    }
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    server = MemoryServer(
        RecordingModel(spec, lambda inputs: {"y": inputs["x"]}), defaults={"max_queue_rows": count}
    )
    answer = both(
        server,
        ask(INFER, head + bytes(4 * count), ("Inference-Header-Content-Length", str(len(head)))),
    )
    assert answer.body.endswith(bytes(4 * count))
    wrong = both(
        server,
        ask(INFER, head + b"\xff" * 4 * count, ("Inference-Header-Content-Length", str(len(head)))),
    )
    assert "BYTES elements" in error(wrong, 400)

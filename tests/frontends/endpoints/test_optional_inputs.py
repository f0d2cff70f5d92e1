"""Inputs that a request may leave out: in every format, with a default and without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import msgpack
import numpy as np
import pytest

from batcher.core.spec import Array
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor


def plus(inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Return `y` = `x` + `bias`, where there is a bias."""
    return {"y": inputs["x"] + inputs["bias"] if "bias" in inputs else inputs["x"]}


def model(default: float | None = None, shape: tuple[int, ...] = ()) -> RecordingModel:
    row = None if default is None else np.full(shape, default, "<f4")
    x, y = tensor("x", shape=shape), tensor("y", shape=shape)
    bias = tensor("bias", shape=shape, is_optional=True, default=row)
    # The optional input stands first: nothing may take it for the one whose rows count.
    return RecordingModel(model_spec((bias, x), (y,)), plus)


def post(server: MemoryServer, body: bytes, media_type: str, target: str = "/predict") -> Answer:
    request = ask(target, body, ("Accept", "application/json"), content_type=media_type)
    return over_connection(server, request)


def npy(array: Array) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


WITHOUT = {
    "application/json": json.dumps({"inputs": {"x": [1, 2]}}).encode(),
    "application/json; by=row": json.dumps({"instances": [{"x": 1}, {"x": 2}]}).encode(),
    "application/json; with=null": json.dumps({"inputs": {"x": [1, 2], "bias": None}}).encode(),
    "application/msgpack": msgpack.packb({"inputs": {"x": [1.0, 2.0]}}),
    "application/octet-stream": np.array([1, 2], "<f4").tobytes(),
    "application/x-npy": npy(np.array([1, 2], "<f4")),
    "text/csv": b"x\n1\n2\n",
    "application/jsonlines": b'{"x": 1}\n{"x": 2}\n',
}
WITH = {
    "application/json": json.dumps({"inputs": {"x": [1, 2], "bias": [5, 6]}}).encode(),
    "application/json; by=row": json.dumps(
        {"instances": [{"x": 1, "bias": 5}, {"bias": 6, "x": 2}]}
    ).encode(),
    "application/msgpack": msgpack.packb({"inputs": {"x": [1.0, 2.0], "bias": [5.0, 6.0]}}),
    "text/csv": b"bias,x\n5,1\n6,2\n",
    "application/jsonlines": b'{"x": 1, "bias": 5}\n{"x": 2, "bias": 6}\n',
}


def outputs(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["outputs"]["y"]


@pytest.mark.parametrize("default", [None, 10.0])
@pytest.mark.parametrize("media_type", WITHOUT)
def test_a_body_of_any_format_may_leave_an_optional_input_out(
    media_type: str, default: float | None
) -> None:
    server = MemoryServer(model(default))
    answer = post(server, WITHOUT[media_type], media_type)
    assert outputs(answer) == ([1, 2] if default is None else [11, 12])
    assert ("bias" in server.model.batches[0]) == (default is not None)


@pytest.mark.parametrize("media_type", WITH)
def test_an_optional_input_that_is_there_is_used(media_type: str) -> None:
    server = MemoryServer(model(10.0))
    assert outputs(post(server, WITH[media_type], media_type)) == [6, 8]


def test_rows_of_one_body_may_differ_where_there_is_a_default() -> None:
    body = json.dumps({"instances": [{"x": 1}, {"x": 2, "bias": 5}, {"x": 3, "bias": None}]})
    assert outputs(post(MemoryServer(model(10.0)), body.encode(), "application/json")) == [
        11,
        7,
        13,
    ]
    answer = post(MemoryServer(model()), body.encode(), "application/json")
    assert answer.status == 400
    assert b"'bias' in all rows or in none, since it has no default" in answer.body


def test_long_bodies_may_leave_it_out_too() -> None:
    rows = [{"x": number} for number in range(3000)]
    body = json.dumps({"instances": [*rows, {"x": 1, "bias": 5}] * 8}).encode()
    found = outputs(
        post(
            MemoryServer(model(10.0), defaults={"max_queue_rows": 1 << 16}),
            body,
            "application/json",
        )
    )
    assert found == ([*range(10, 3010), 6]) * 8


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"bias": [1]}, "expected inputs 'bias' (optional), 'x'; got 'bias'"),
        ({"x": [1], "other": [1]}, "expected inputs 'bias' (optional), 'x'; got 'x', 'other'"),
        ({"x": [1], "bias": [1], "other": [1]}, "got 'x', 'bias', 'other'"),
        ({"x": [1, 2], "bias": [1]}, "expected 1 rows, as in 'bias'; got 2"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_optional(inputs: Any, told: str) -> None:
    answer = post(
        MemoryServer(model()), json.dumps({"inputs": inputs}).encode(), "application/json"
    )
    assert (answer.status, told in json.loads(answer.body)["error"]) == (400, True), answer.body


def test_requests_with_and_without_share_a_batch_only_where_there_is_a_default() -> None:
    for default, sizes in ((None, [1, 1]), (10.0, [2])):
        server = MemoryServer(model(default))
        clients = [server.connect("loop") for _ in range(2)]
        for client, inputs in zip(clients, ({"x": [1]}, {"x": [2], "bias": [3]}), strict=True):
            body = json.dumps({"inputs": inputs}).encode()
            client.send(ask("/predict", body, content_type="application/json"))
        server.work()
        assert server.model.sizes() == sizes


def tensor_of(name: str, *values: float) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [len(values), 1], "data": list(values)}


def test_the_open_inference_protocol_may_leave_it_out() -> None:
    server = MemoryServer(model(10.0))
    for inputs, found in (
        ([tensor_of("x", 1, 2)], [11, 12]),
        ([tensor_of("x", 1, 2), tensor_of("bias", 3, 4)], [4, 6]),
    ):
        body = json.dumps({"inputs": inputs}).encode()
        answer = post(server, body, "application/json", "/v2/models/m/infer")
        assert json.loads(answer.body)["outputs"][0]["data"] == found
    body = json.dumps({"inputs": [tensor_of("bias", 1)]}).encode()
    answer = post(server, body, "application/json", "/v2/models/m/infer")
    assert b"expected inputs 'bias' (optional), 'x'; 'x' is missing" in answer.body


def test_bytes_without_json_are_the_input_that_is_required() -> None:
    request = ask(
        "/v2/models/m/infer",
        np.array([1], "<f4").tobytes(),
        ("Inference-Header-Content-Length", "0"),
    )
    answer = over_connection(MemoryServer(model(10.0)), request)
    assert np.array([11], "<f4").tobytes() in answer.body


def test_the_tensorflow_form_may_leave_it_out() -> None:
    for document, found in (
        ({"instances": [{"x": 1}, {"x": 2}]}, {"predictions": [11, 12]}),
        ({"inputs": {"x": [1, 2]}}, {"outputs": [11, 12]}),
    ):
        body = json.dumps(document).encode()
        answer = post(MemoryServer(model(10.0)), body, "application/json", "/v1/models/m:predict")
        assert json.loads(answer.body) == found


def test_the_descriptions_say_what_is_optional() -> None:
    server = MemoryServer(model())
    config = json.loads(over_connection(server, ask("/v2/models/m/config")).body)
    assert [entry.get("optional", False) for entry in config["input"]] == [True, False]
    schema = json.loads(over_connection(server, ask("/openapi.json")).body)
    assert '"required": ["x"]' in json.dumps(schema)

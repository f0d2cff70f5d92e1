"""TensorFlow Serving's REST form, by row and by column, over both stacks."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batcher.core.spec import Array
from batcher.errors import ModelLoadError
from tests.frontends.endpoints.conftest import MORE
from tests.support.http import MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor

Both = Callable[[MemoryServer, bytes], Answer]
PREDICT = "/v1/models/m:predict"
TWO = model_spec(
    inputs=(tensor("x", "FP32", (2,)), tensor("n", "INT64", ())),
    outputs=(tensor("y", "FP32", (2,)), tensor("k", "INT64", ())),
)


def posted(both: Both, document: Any, *models: RecordingModel, target: str = PREDICT) -> Answer:
    return both(MemoryServer(*models), ask(target, json.dumps(document).encode()))


def two(inputs: Any) -> dict[str, Array]:
    return {"y": inputs["x"] * 2, "k": inputs["n"] + 1}


def echo(inputs: Any) -> dict[str, Array]:
    return {"y": inputs["x"]}


@pytest.mark.parametrize(
    "target", [PREDICT, "/v1/models/m/versions/1:predict", "/v1/models/%6D:predict"]
)
def test_rows_are_answered_by_row(both: Both, target: str) -> None:
    answer = posted(
        both,
        {"signature_name": "serving_default", "instances": [[1, 2, 3, 4], [5, 6, 7, 8]]},
        target=target,
    )
    assert answer.decoded() == {"predictions": [[2, 4, 6, 8], [10, 12, 14, 16]]}


def test_rows_of_names_are_answered_so(both: Both) -> None:
    rows = [{"x": [1, 2], "n": 1}, {"x": [3, 4], "n": 2}]
    answer = posted(both, {"instances": rows}, RecordingModel(TWO, two))
    assert answer.decoded() == {"predictions": [{"y": [2, 4], "k": 2}, {"y": [6, 8], "k": 3}]}


def test_columns_are_answered_by_column(both: Both) -> None:
    answer = posted(
        both, {"inputs": {"x": [[1, 2], [3, 4]], "n": [1, 2]}}, RecordingModel(TWO, two)
    )
    assert answer.decoded() == {"outputs": {"y": [[2, 4], [6, 8]], "k": [2, 3]}}


@pytest.mark.parametrize("column", [[[1, 2, 3, 4]], {"x": [[1, 2, 3, 4]]}])
def test_the_only_column_needs_no_name(both: Both, column: Any) -> None:
    assert posted(both, {"inputs": column}).decoded() == {"outputs": [[2, 4, 6, 8]]}


@pytest.mark.parametrize("size", [4, 1 << 17])
@pytest.mark.parametrize("target", [PREDICT, "/models/m/predict"])
def test_an_input_that_the_model_lacks_is_the_clients_fault(
    both: Both, size: int, target: str
) -> None:
    columns = {"x": [[1, 2, 3, 4]], "z": [[0] * size]}
    body = json.dumps({"inputs": columns}).encode()
    answer = both(MemoryServer(), ask(target, body, content_type="application/json"))
    assert answer.status == 400
    assert "expected inputs 'x'; got 'x', 'z'" in answer.decoded()["error"]


def test_bytes_that_are_no_text_are_base64_both_ways(both: Both) -> None:
    spec = model_spec(inputs=(tensor("x", "BYTES", ()),), outputs=(tensor("y", "BYTES", ()),))
    packed = {"b64": b64encode(b"\xff\x00").decode()}
    model = RecordingModel(spec, echo)
    answer = posted(
        both, {"instances": [packed, "text", {"b64": b64encode(b"plain").decode()}]}, model
    )
    assert answer.decoded() == {"predictions": [packed, "text", "plain"]}
    assert model.batches[0]["x"].tolist() == [b"\xff\x00", b"text", b"plain"]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"instances": [[1, 2, 3, 4]], "inputs": [[1, 2, 3, 4]]},
        {"instances": [[1, 2, 3]]},
        {"instances": 7},
        {"instances": [{"b64": "AA=="}]},
        {"inputs": None},
        {"signature_name": "other", "instances": [[1, 2, 3, 4]]},
    ],
)
def test_what_is_wrong_is_a_400_that_says_what_was_expected(both: Both, document: Any) -> None:
    answer = posted(both, document)
    assert answer.status == 400
    assert list(answer.decoded()) == ["error"]
    assert "expected" in answer.decoded()["error"]


def test_base64_that_is_none_is_refused(both: Both) -> None:
    model = RecordingModel(
        model_spec(inputs=(tensor("x", "BYTES", ()),), outputs=(tensor("y", "BYTES", ()),)), echo
    )
    assert "base64" in posted(both, {"instances": [{"b64": "?"}]}, model).decoded()["error"]


@pytest.mark.parametrize("target", ["/v1/models/other:predict", "/v1/models/m/versions/2:predict"])
def test_what_is_not_there_is_a_404(both: Both, target: str) -> None:
    answer = posted(both, {"instances": [[1, 2, 3, 4]]}, target=target)
    assert (answer.status, list(answer.decoded())) == (404, ["error"])


def test_a_model_tells_the_states_of_its_versions(both: Both) -> None:
    server = MemoryServer(RecordingModel(), RecordingModel(model_spec(version="2")))
    server.add(RecordingModel(model_spec(version="3"))).loaded.errback(ModelLoadError("no weights"))
    fine = {"error_code": "OK", "error_message": ""}
    listed = both(server, ask("/v1/models/m")).decoded()["model_version_status"]
    assert listed[:2] == [
        {"version": version, "state": "AVAILABLE", "status": fine} for version in ("1", "2")
    ]
    assert (listed[2]["state"], listed[2]["status"]["error_message"]) == (
        "END",
        f"the version could not be loaded{MORE}",
    )
    assert (
        both(server, ask("/v1/models/m/versions/2")).decoded()["model_version_status"]
        == listed[1:2]
    )
    assert both(server, ask("/v1/models/other")).status == 404


def test_numbers_of_every_kind_are_listed(both: Both) -> None:
    spec = model_spec(inputs=(tensor("x", "FP32", (2,)),), outputs=(tensor("y", "BOOL", (2,)),))
    model = RecordingModel(spec, lambda inputs: {"y": np.array(inputs["x"] > 1)})
    assert posted(both, {"instances": [[1, 2]]}, model).decoded() == {
        "predictions": [[False, True]]
    }

"""What clients of the protocol send that its text does not have, and what they must not get."""

from __future__ import annotations

import json

import numpy as np
import pytest

from batcher.codecs.oip.request import InferHead, all_outputs, read_head
from batcher.codecs.oip.response import encode
from batcher.core.request import InferenceResponse
from batcher.errors import NotAcceptable
from tests.support.models import model_spec, tensor


def test_any_byte_but_0_is_true() -> None:
    spec = model_spec((tensor("x", "BOOL", (4,)),))
    parameters = {"binary_data_size": 4}
    document = {
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "BOOL", "parameters": parameters}]
    }
    found = read_head(json.dumps(document).encode(), spec).inputs(b"\x00\x01\x02\xff")["x"]
    assert found.tolist() == [[False, True, True, True]]
    assert found.view("u1").max() == 1


def test_a_timeout_beyond_a_day_is_a_day() -> None:
    entry = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    document = {"inputs": [entry], "parameters": {"timeout": 2**63}}
    assert read_head(json.dumps(document).encode(), model_spec()).timeout == 86_400


def test_data_that_are_null_are_absent() -> None:
    entry = {
        "name": "x",
        "shape": [1, 4],
        "datatype": "FP32",
        "data": None,
        "parameters": {"binary_data_size": 16},
    }
    head = read_head(json.dumps({"inputs": [entry]}).encode(), model_spec())
    assert head.inputs(bytes(16))["x"].tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("shape", [[2], [2, 1]], ids=str)
def test_rows_without_axes_may_be_written_with_one(shape: list[int]) -> None:
    spec = model_spec((tensor("x", "FP32", ()),))
    entry = {"name": "x", "shape": shape, "datatype": "FP32"}
    flat = {"inputs": [entry | {"data": [1, 2]}]}
    binary = {"inputs": [entry | {"parameters": {"binary_data_size": 8}}]}
    assert read_head(json.dumps(flat).encode(), spec).inputs(b"")["x"].tolist() == [1, 2]
    data = np.array([1, 2], "<f4").tobytes()
    assert read_head(json.dumps(binary).encode(), spec).inputs(data)["x"].tolist() == [1, 2]


def test_bytes_that_are_no_text_are_refused_in_json_rather_than_changed() -> None:
    spec = model_spec(outputs=(tensor("y", "BYTES", (1,)),))
    response = InferenceResponse("m", "1", {"y": np.array([[b"\xff"]], object)}, 0, 0, 1)
    with pytest.raises(NotAcceptable, match="binary_data"):
        encode(response, InferHead("", 0, None, {}, (), all_outputs(spec, False)))
    assert encode(response, InferHead("", 0, None, {}, (), all_outputs(spec, True))).body.endswith(
        b"\x01\x00\x00\x00\xff"
    )

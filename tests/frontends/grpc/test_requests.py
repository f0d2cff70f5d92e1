"""Messages become requests: every datatype, as bytes and as typed contents, and every refusal."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import DATATYPES
from batcher.errors import ClientError, NotServed, TooLarge
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from batcher.frontends.grpc.requests import InferMessageReader
from batcher.frontends.grpc.typed import MAX_TYPED_VALUES
from tests.frontends.grpc.conftest import request
from tests.support.models import model_spec, rows, tensor

SPEC = model_spec(outputs=(tensor("y"), tensor("z")))
TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [0.5, -1.5]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
    "BYTES": ("bytes_contents", [b"", b"\xff\x00"]),
}


def one_input(datatype: str, shape: tuple[int, ...] = (1, 2), **more: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(
        inputs=[{"name": "x", "datatype": datatype, "shape": shape, **more}]
    )


def refused(message: pb.ModelInferRequest, spec: Any = SPEC) -> str:
    with pytest.raises(ClientError) as caught:
        InferMessageReader(spec).read(message).inputs()
    return str(caught.value)


@pytest.mark.parametrize("datatype", sorted(TYPED))
def test_typed_contents_become_arrays_of_the_datatype(datatype: str) -> None:
    field, values = TYPED[datatype]
    reader = InferMessageReader(model_spec((tensor("x", datatype, (2,)),)))
    array = reader.read(one_input(datatype, contents={field: values})).inputs()["x"]
    assert array.dtype == DATATYPES[datatype].numpy
    assert array.tolist() == [values]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_have_no_typed_contents(datatype: str) -> None:
    text = refused(
        one_input(datatype, contents={"fp32_contents": [1, 2]}),
        model_spec((tensor("x", datatype, (2,)),)),
    )
    assert "raw_input_contents" in text


@given(st.data())
def test_bytes_become_arrays_as_they_stand(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(set(DATATYPES) - {"BYTES", "BOOL"})))
    count = data.draw(st.integers(1, 5))
    dtype = DATATYPES[name].numpy
    raw = data.draw(
        st.binary(min_size=3 * count * dtype.itemsize, max_size=3 * count * dtype.itemsize)
    )
    message = one_input(name, (count, 3))
    message.raw_input_contents.append(raw)
    array = InferMessageReader(model_spec((tensor("x", name, (3,)),))).read(message).inputs()["x"]
    assert (array.dtype, array.shape, array.tobytes()) == (dtype, (count, 3), raw)


def test_bytes_are_not_copied() -> None:
    parsed = InferMessageReader(SPEC).read(request(1.0))
    address = np.frombuffer(parsed.raw[0], np.uint8).__array_interface__["data"][0]
    assert parsed.inputs()["x"].__array_interface__["data"][0] == address


def test_several_inputs_take_their_own_bytes() -> None:
    spec = model_spec((tensor("a"), tensor("b", "INT64", (1,))))
    message = pb.ModelInferRequest(
        inputs=[
            {"name": "b", "datatype": "INT64", "shape": (1, 1)},
            {"name": "a", "datatype": "FP32", "shape": (1, 4)},
        ],
        raw_input_contents=[np.int64(7).tobytes(), rows(3.0).tobytes()],
    )
    inputs = InferMessageReader(spec).read(message).inputs()
    assert (inputs["a"].tolist(), inputs["b"].tolist()) == ([[3, 3, 3, 3]], [[7]])


def test_parameters_of_every_kind_are_read() -> None:
    message = request(id="i")
    message.parameters["priority"].uint64_param = 2
    message.parameters["timeout"].int64_param = 1_500_000
    message.parameters["other"].double_param = 0.5
    message.parameters[
        "triton_enable_empty_final_response"
    ].bool_param = True  # clients always send it
    head = InferMessageReader(SPEC).read(message).head
    assert (head.id, head.priority, head.timeout) == ("i", 2, 1.5)


def test_outputs_are_those_that_are_asked_for_as_bytes() -> None:
    assert [
        wanted.tensor.name for wanted in InferMessageReader(SPEC).read(request()).head.outputs
    ] == [
        "y",
        "z",
    ]
    message = request(outputs=[{"name": "z"}])
    message.outputs[0].parameters["classification"].int64_param = 3
    (wanted,) = InferMessageReader(SPEC).read(message).head.outputs
    assert (wanted.tensor.name, wanted.binary, wanted.classes) == ("z", True, 3)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (pb.ModelInferRequest(), "inputs"),
        (one_input("FP32", (1, 4)), "16 bytes"),
        (
            one_input("INT8", (1, 4), contents={"int_contents": [1, 128]}),
            "-128 to 127 for INT8; got 128",
        ),
        (
            one_input("UINT8", (1, 4), contents={"uint_contents": [256]}),
            "0 to 255 for UINT8; got 256",
        ),
        (
            one_input("FP32", (1, 4), contents={"fp32_contents": [0.0] * (MAX_TYPED_VALUES + 1)}),
            "raw_input_contents",
        ),
        (pb.ModelInferRequest(inputs=[{}] * 2), "at most 1"),
        (request(outputs=[{"name": "y"}] * 3), "at most 2"),
        (
            request(parameters={str(index): {"bool_param": True} for index in range(101)}),
            "at most 100",
        ),
        (one_input("FP64", (1, 4)), "FP32; got 'FP64'"),
        (one_input("", (1, 4)), "raw_input_contents"),
        (one_input("FP32", (1, 3), contents={"fp32_contents": [1, 2, 3]}), "[-1,4]"),
        (one_input("FP32", (-1, 4), contents={"fp32_contents": [1, 2, 3, 4]}), "shape"),
        (
            one_input("FP32", (2**62, 4), contents={"fp32_contents": [1]}),
            "axes of at most 2147483647",
        ),
        (one_input("FP32", (2**62,) * 100_000), "at most 32 axes; got 100000"),
        (
            pb.ModelInferRequest(inputs=request().inputs, raw_input_contents=[b""] * 100_000),
            "expected 1, one for each input, or none; got 100000",
        ),
        (
            one_input("FP32", (1, 4), contents={"fp64_contents": [1, 2, 3, 4]}),
            "fp32_contents for FP32; got fp64_contents",
        ),
        (
            one_input("FP32", (1, 4), contents={"fp32_contents": [1], "int_contents": [1]}),
            "got int_contents",
        ),
        (request(outputs=[{"name": "other"}]), "'other'"),
        (request(outputs=[{"name": "y"}, {"name": "y"}]), "twice"),
        (
            pb.ModelInferRequest(inputs=request().inputs, raw_input_contents=[b"1", b"2"]),
            "expected 1",
        ),
        (pb.ModelInferRequest(inputs=request().inputs, raw_input_contents=[b"123"]), "16 bytes"),
        (
            pb.ModelInferRequest(
                inputs=[*request().inputs] * 2, raw_input_contents=[b"1" * 16] * 2
            ),
            "at most 1",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_what_was_expected(
    message: pb.ModelInferRequest, said: str
) -> None:
    assert said in refused(message)


def test_bytes_and_typed_contents_in_one_request_are_refused() -> None:
    message = request()
    message.inputs[0].contents.fp32_contents.append(1)
    assert "got both" in refused(message)


def test_a_head_that_repeats_is_read_once_and_takes_other_bytes_and_another_name() -> None:
    reader = InferMessageReader(SPEC)
    first, second = reader.read(request(1.0, id="a")), reader.read(request(2.0, id="b"))
    assert (first.head.id, second.head.id) == ("a", "b")
    assert first.head.binaries is second.head.binaries
    assert (first.inputs()["x"][0, 0], second.inputs()["x"][0, 0]) == (1, 2)
    short = request(1.0)
    short.raw_input_contents[0] = b"123"
    with pytest.raises(ClientError, match="16 bytes"):
        reader.read(short).inputs()
    many = request(1.0)
    many.raw_input_contents.append(b"")
    with pytest.raises(ClientError, match="expected 1"):
        reader.read(many)
    levels = [request(1.0), request(1.0)]
    for level, message in enumerate(levels):
        message.parameters["priority"].int64_param = level + 1
    assert [reader.read(message).head.priority for message in levels] == [1, 2]


def test_an_empty_parameter_is_refused() -> None:
    message = request()
    message.parameters["priority"].SetInParent()
    assert "parameter 'priority'" in refused(message)


@pytest.mark.parametrize("key", ["shared_memory_region", "sequence_id"])
def test_what_is_not_served_says_so(key: str) -> None:
    message = request()
    holder = message.inputs[0].parameters if key.startswith("shared") else message.parameters
    holder[key].string_param = "s"
    with pytest.raises(NotServed):
        InferMessageReader(SPEC).read(message)


@given(st.binary(max_size=200))
def test_no_message_that_can_be_parsed_is_more_than_refused(data: bytes) -> None:
    message = pb.ModelInferRequest()
    try:
        message.ParseFromString(data + request().SerializeToString())
    except Exception:  # what cannot be parsed never comes here
        return
    with suppress(ClientError):
        assert set(InferMessageReader(SPEC).read(message).inputs()) == {"x"}


def test_more_elements_than_the_queue_can_hold_are_refused_before_they_are_made() -> None:
    spec = model_spec((tensor("x", "BYTES", (-1,)),))
    reader = InferMessageReader(spec, DecodingLimits(10, 1000))
    with pytest.raises(TooLarge, match=r"expected at most 10 rows .* and 1000 bytes"):
        reader.read(one_input("BYTES", shape=(1, 30), contents={"bytes_contents": [b""] * 30}))


def test_an_optional_input_may_be_left_out_of_a_message() -> None:
    reader = InferMessageReader(model_spec((tensor("bias", is_optional=True), tensor("x"))))
    message = one_input("FP32", (1, 4), contents={"fp32_contents": [1, 2, 3, 4]})
    assert {name: array.tolist() for name, array in reader.read(message).inputs().items()} == {
        "x": [[1, 2, 3, 4]]
    }

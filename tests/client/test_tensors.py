"""Arrays of every datatype, through the server's own decoder and encoder and back."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.client import Bfloat16, MalformedAnswer
from batcher.client.request_building import infer_operation, model_path
from batcher.client.response_reading import HttpResponse, read_result
from batcher.client.tensors import to_tensor
from batcher.codecs.formats.bfloat16 import to_float32
from batcher.core.spec import DATATYPES, Array, ModelSpec, check_inputs
from tests.support.codec_inputs import arrays, batches, damaged, one_input, same
from tests.support.models import tensor
from tests.support.oip_peer import give, take


def value_of(array: Array, datatype: str) -> Any:
    return Bfloat16(array) if datatype == "BF16" else array


@given(batches(list(DATATYPES)))
def test_what_is_sent_is_what_the_server_reads_and_what_it_answers_is_what_comes_back(
    drawn: tuple[ModelSpec, Array],
) -> None:
    spec, sent = drawn
    operation = infer_operation(
        "m", {"x": value_of(sent, spec.inputs[0].datatype.name)}, "", None, 0, ""
    )
    request = operation.request(1.5)
    head, inputs = take(request.headers, request.body, spec)
    assert check_inputs(spec, inputs) == len(sent)
    same(inputs["x"], sent)
    result = operation.read(give(head, inputs))
    assert list(result.outputs) == ["x"]
    same(result.outputs["x"], sent)


@given(st.data())
def test_several_tensors_keep_their_names_and_order(data: st.DataObject) -> None:
    names = ["é", 'a"b', "", "c/d"]
    kinds = [data.draw(st.sampled_from(["FP32", "BYTES", "BOOL", "INT8"])) for _ in names]
    spec = ModelSpec(
        "m",
        "1",
        tuple(tensor(name, kind, (2,)) for name, kind in zip(names, kinds, strict=True)),
        tuple(tensor(name, kind, (2,)) for name, kind in zip(names, kinds, strict=True)),
    )
    sent = {name: data.draw(arrays(kind, (3, 2))) for name, kind in zip(names, kinds, strict=True)}
    operation = infer_operation("m", sent, "", names[1:], 3, "my-é")
    request = operation.request(0.25)
    head, inputs = take(request.headers, request.body, spec)
    assert (head.id, head.priority, head.timeout) == ("my-é", 3, 0.25)
    result = operation.read(give(head, inputs))
    assert (result.model, result.version, result.id, list(result.outputs)) == (
        "m",
        "1",
        "my-é",
        names[1:],
    )
    for name in names[1:]:
        same(result.outputs[name], sent[name])


def received(value: Any, datatype: str, shape: tuple[int, ...] = (2,)) -> Array:
    request = infer_operation("m", {"x": value}, "", None, 0, "").request(1)
    return take(request.headers, request.body, one_input(datatype, shape)).inputs["x"]


def test_arrays_of_any_layout_arrive_as_they_look() -> None:
    array = np.arange(12, dtype="<f4").reshape(6, 2)
    same(received(array[::2], "FP32"), np.ascontiguousarray(array[::2]))
    same(received(np.asfortranarray(array), "FP32"), array)
    same(received(array.astype(">f4"), "FP32"), array)
    same(received([[1, 2], [3, 4]], "INT64"), np.array([[1, 2], [3, 4]], "<i8"))
    same(received(np.empty((0, 2), "<f4"), "FP32"), np.empty((0, 2), "<f4"))


def test_text_arrives_as_bytes_in_utf_8() -> None:
    expected = np.array([["é".encode(), b"b"]], object)
    same(received([["é", "b"]], "BYTES"), expected)
    same(received(np.array([["é".encode(), b"b"]]), "BYTES"), expected)
    same(received(np.array([["é", b"b"]], object), "BYTES"), expected)


def test_bf16_is_taken_as_bits_as_floats_and_as_the_dtype_of_ml_dtypes() -> None:
    floats = np.array([[1.5, -2.0]], "<f4")
    bits = floats.astype(ml_dtypes.bfloat16).view("u2")
    for value in (
        Bfloat16(bits),
        Bfloat16(floats),
        Bfloat16([[1.5, -2.0]]),
        floats.astype(ml_dtypes.bfloat16),
    ):
        found = received(value, "BF16")
        same(found, bits)
        assert to_float32(found).tolist() == floats.tolist()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.zeros(1, "c8"), r"input 'x': expected an array of one of BOOL, .*; got complex64"),
        (np.zeros(1, "M8[s]"), r"got datetime64\[s\]"),
        (
            np.array([1, "a"], object),
            "input 'x': expected bytes or text in an array of objects; got int",
        ),
        (
            Bfloat16(np.zeros(1, "i4")),
            "input 'x': expected BF16 as bits of uint16, or floats; got int32",
        ),
    ],
)
def test_what_has_no_datatype_is_refused_before_anything_is_sent(value: Any, expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        to_tensor("x", value)


def test_outputs_are_read_only_views_of_the_body() -> None:
    request = infer_operation("m", {"x": np.ones((1, 2), "<f4")}, "", None, 0, "").request(1)
    head, inputs = take(request.headers, request.body, one_input())
    answer = give(head, inputs)
    output = read_result(answer).outputs["x"]
    assert np.shares_memory(output, np.frombuffer(answer.body, "u1"))
    assert not output.flags.writeable


GOOD = [
    give(take(request.headers, request.body, one_input(kind)).head, {"x": value})
    for kind, value in (
        ("FP32", np.ones((2, 2), "<f4")),
        ("BYTES", np.array([[b"a", b""]], object)),
        ("BOOL", np.ones((1, 2), "?")),
    )
    for request in (infer_operation("m", {"x": value}, "", None, 0, "").request(1),)
]


@given(
    st.sampled_from(GOOD).flatmap(
        lambda answer: st.tuples(st.just(answer.headers), damaged([answer.body]))
    )
)
def test_a_damaged_answer_is_read_or_refused_in_words(drawn: tuple[dict[str, str], bytes]) -> None:
    headers, body = drawn
    with suppress(MalformedAnswer):  # nothing else is raised
        assert isinstance(read_result(HttpResponse(200, headers, body)).outputs, dict)


@pytest.mark.parametrize("cut", [1, 4, 15])
def test_an_answer_that_is_cut_off_is_refused(cut: int) -> None:
    for answer in GOOD:
        with pytest.raises(MalformedAnswer):
            read_result(answer._replace(body=answer.body[:-cut]))
        with pytest.raises(MalformedAnswer):
            read_result(answer._replace(body=answer.body + b"\0" * cut))


@pytest.mark.parametrize(
    ("model", "version", "path"),
    [
        ("digits", "", "/v2/models/digits"),
        ("digits", "2", "/v2/models/digits/versions/2"),
        ("a/b c?é%", "1/2", "/v2/models/a%2Fb%20c%3F%C3%A9%25/versions/1%2F2"),
    ],
)
def test_a_name_is_one_segment_of_the_path(model: str, version: str, path: str) -> None:
    assert model_path(model, version) == path


@pytest.mark.parametrize(("model", "version"), [("", ""), ("..", ""), (".", ""), ("m", "..")])
def test_a_name_that_would_lead_elsewhere_is_refused(model: str, version: str) -> None:
    with pytest.raises(ValueError, match="expected the name of a model"):
        model_path(model, version)


def test_a_call_without_inputs_or_with_an_odd_priority_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one input"):
        infer_operation("m", {}, "", None, 0, "")
    with pytest.raises(ValueError, match=r"write \['y'\]"):
        infer_operation("m", {"x": [1]}, "", "y", 0, "")
    for priority in (-1, 1.5):
        with pytest.raises(ValueError, match="expected 1"):
            infer_operation("m", {"x": [1]}, "", None, priority, "")  # type: ignore[arg-type]

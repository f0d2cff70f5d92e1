"""What cannot be misread needs no list: bare values, single texts, base64, whole files."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import numpy as np
import pytest

from batcher.codecs.content import Content
from batcher.codecs.format_table import decode_body
from batcher.codecs.formats.json_text import LARGE_BYTES
from batcher.codecs.negotiation import media_type, request_format
from batcher.codecs.oip.request import read_head
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import one_input
from tests.support.models import model_spec, tensor

TEXT, LIST_OF_ONE = one_input("BYTES", ()), one_input("BYTES", (1,))
B64 = {"b64": "/wA="}


def read(body: bytes, header: str, spec: ModelSpec) -> dict[str, Array]:
    kind, parameters = media_type(header)
    inputs = decode_body(request_format(header, spec), Content(body, kind, parameters), spec)
    check_inputs(spec, inputs)
    return inputs


def from_json(document: Any, spec: ModelSpec) -> Any:
    (array,) = read(json.dumps(document).encode(), "application/json", spec).values()
    return array.tolist()


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": {"x": "a"}},
        {"inputs": {"x": ["a"]}},
        {"inputs": "a"},
        {"inputs": ["a"]},
        {"instances": ["a"]},
        {"instances": [{"x": "a"}]},
    ],
)
def test_one_text_is_one_row(document: Any) -> None:
    assert from_json(document, TEXT) == [b"a"]
    assert from_json(document, LIST_OF_ONE) == [[b"a"]]


def test_a_list_of_texts_is_one_row_each() -> None:
    for document in (
        {"inputs": ["a", "b"]},
        {"instances": ["a", "b"]},
        {"inputs": {"x": ["a", "b"]}},
    ):
        assert from_json(document, LIST_OF_ONE) == [[b"a"], [b"b"]]


def test_numbers_of_one_element_need_no_list_either() -> None:
    assert from_json({"inputs": 3}, one_input("FP32", ())) == [3.0]
    assert from_json({"inputs": {"x": [1, 2]}}, one_input("INT64", (1,))) == [[1], [2]]
    assert from_json({"inputs": True}, one_input("BOOL", (1,))) == [[True]]


@pytest.mark.parametrize("shape", [(-1,), (2,), (1, 1)])
def test_texts_that_may_be_one_row_or_several_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"expected .*BYTES"):
        from_json({"inputs": ["a", "b"]}, one_input("BYTES", shape))
    with pytest.raises(InvalidInput, match="as nested lists; got 'a'"):
        from_json({"inputs": "a"}, one_input("BYTES", shape))


def test_a_bare_value_is_of_the_input_that_every_request_has() -> None:
    spec = model_spec(inputs=(tensor("bias", is_optional=True), tensor("x", shape=(2,))))
    assert from_json({"inputs": [[1, 2]]}, spec) == [[1, 2]]
    assert from_json({"instances": [[1, 2]]}, spec) == [[1, 2]]


def test_a_bare_value_of_a_model_of_two_inputs_is_refused() -> None:
    spec = model_spec(inputs=(tensor("a"), tensor("b")))
    with pytest.raises(InvalidInput, match="expected an object of name to values; got list"):
        from_json({"inputs": [[1, 2, 3, 4]]}, spec)


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": B64},
        {"inputs": [B64]},
        {"inputs": {"x": B64}},
        {"inputs": {"x": [B64]}},
        {"instances": [B64]},
        {"instances": [{"x": B64}]},
    ],
)
def test_base64_stands_for_bytes_wherever_a_text_may_stand(document: Any) -> None:
    assert from_json(document, TEXT) == [b"\xff\0"]
    assert from_json(document, LIST_OF_ONE) == [[b"\xff\0"]]


def test_base64_may_stand_beside_texts_and_within_lists() -> None:
    spec = one_input("BYTES", (2,))
    assert from_json({"inputs": [["a", B64], [B64, "ä"]]}, spec) == [
        [b"a", b"\xff\0"],
        [b"\xff\0", "ä".encode()],
    ]


def test_base64_is_read_in_lines_and_in_the_open_inference_protocol() -> None:
    lines = read(b'{"b64": "/wA="}\n"b"\n', "application/jsonlines", TEXT)
    assert lines["x"].tolist() == [b"\xff\0", b"b"]
    document = {"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": [B64, "b"]}]}
    assert read_head(json.dumps(document).encode(), TEXT).arrays["x"].tolist() == [b"\xff\0", b"b"]


def test_base64_is_read_in_large_documents() -> None:
    text = "QUJD" * (LARGE_BYTES // 3)
    (array,) = (from_json({"instances": [{"b64": text}, "b"]}, TEXT),)
    assert array == [b"ABC" * (LARGE_BYTES // 3), b"b"]


@pytest.mark.parametrize("value", [{"b64": "a?"}, {"b64": 1}, {"b64": "YQ==", "more": 1}, {}])
def test_what_is_no_base64_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"b64|expected a string|expected inputs"):
        from_json({"inputs": {"x": [value]}}, TEXT)


def test_a_name_of_an_input_is_never_taken_for_base64() -> None:
    spec = model_spec(inputs=(tensor("b64", "BYTES", ()),))
    assert from_json({"inputs": {"b64": "YQ=="}}, spec) == [b"YQ=="]
    assert from_json({"instances": [{"b64": "YQ=="}]}, spec) == [b"YQ=="]


def test_a_body_of_plain_text_is_one_row() -> None:
    assert read("größer\n".encode(), "text/plain", LIST_OF_ONE)["x"].tolist() == [
        ["größer\n".encode()]
    ]
    assert read("größer".encode("latin-1"), "text/plain; charset=latin-1", TEXT)["x"].tolist() == [
        "größer".encode()
    ]
    with pytest.raises(DecodingError, match="charset"):
        read(b"\xff", "text/plain; charset=utf-16", TEXT)


def test_a_file_of_any_type_is_one_row_as_it_is() -> None:
    body = b"\x89PNG\r\n\xff\0"
    for header in ("image/png", "application/octet-stream", "application/pdf", "text/html"):
        assert read(body, header, LIST_OF_ONE)["x"].tolist() == [[body]]
    assert read(body, "image/png", one_input("BYTES", (-1,)))["x"].shape == (1, 1)


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [
        f'--f\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + body + b"\r\n"
        for name, body in fields
    ]
    return b"".join(parts) + b"--f--\r\n"


def test_fields_of_a_form_are_files_of_the_inputs_of_their_names() -> None:
    spec = model_spec(inputs=(tensor("a", "BYTES", (1,)), tensor("b", "BYTES", ())))
    body = form(("a", b"1"), ("b", b"\xff"), ("a", b""), ("b", b"4"))
    inputs = read(body, "multipart/form-data; boundary=f", spec)
    assert inputs["a"].tolist() == [[b"1"], [b""]]
    assert inputs["b"].tolist() == [b"\xff", b"4"]
    with pytest.raises(InvalidInput, match="expected files in field 'a', 'b'; got field 'c'"):
        read(form(("c", b"")), "multipart/form-data; boundary=f", spec)


def test_an_array_of_messagepack_may_stand_for_the_only_input() -> None:
    inputs = read(msgpack.packb({"inputs": [[1, 2]]}), "application/msgpack", one_input())
    np.testing.assert_array_equal(inputs["x"], np.array([[1, 2]], "<f4"))

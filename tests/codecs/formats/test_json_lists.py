"""`application/json`: values that stay unchanged both ways, both layouts, charsets, other bodies.

Which values an input takes is in `test_nested_lists.py`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import json_lists
from batcher.codecs.formats.json_text import LARGE_BYTES
from batcher.codecs.negotiation import media_type
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import (
    arrays,
    batches,
    damaged,
    decoded_or_refused,
    echo_spec,
    one_input,
    response,
    same,
)
from tests.support.models import tensor

TWO_INPUTS = echo_spec(tensor("a", "FP32", (2,)), tensor("b", "INT64", ()))
BODIES = [
    b'{"inputs": {"x": [[1, 2.5], [-3e2, 4]]}}',
    b'{"instances": [[1, 2], [3, 4]]}',
    b'{"instances": [{"x": [true, false]}], "id": "7"}',
    '{"inputs": {"x": [["ä", "\\ud83d\\ude00"]]}}'.encode(),
]


def decode(body: bytes, spec: ModelSpec, charset: str | None = None) -> dict[str, Array]:
    parameters = {} if charset is None else {"charset": charset}
    inputs = json_lists.decode(Content(body, "application/json", parameters), spec)
    check_inputs(spec, inputs)
    return inputs


def answered(spec: ModelSpec, **outputs: Array) -> Any:
    return json.loads(bytes(json_lists.encode(response(**outputs), spec)))


@given(batches(finite=True))
def test_an_answer_that_is_sent_back_is_the_array_to_the_last_bit(
    batch: tuple[ModelSpec, Array],
) -> None:
    spec, array = batch
    body = json.dumps({"inputs": answered(spec, x=array)["outputs"]}).encode()
    same(decode(body, spec)["x"], array)


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple))
def test_any_text_comes_back(data: st.DataObject, shape: tuple[int, ...]) -> None:
    array = data.draw(arrays("BYTES", shape))
    spec = one_input("BYTES", shape[1:])
    body = json.dumps({"inputs": answered(spec, x=array)["outputs"]}).encode()
    same(decode(body, spec)["x"], array)


@given(batches(["FP32", "INT64", "BOOL"], finite=True))
def test_rows_as_instances_are_the_same_as_columns_as_inputs(
    batch: tuple[ModelSpec, Array],
) -> None:
    spec, array = batch
    rows = array.tolist()
    by_row = decode(json.dumps({"instances": rows}).encode(), spec)
    by_name = decode(json.dumps({"instances": [{"x": row} for row in rows]}).encode(), spec)
    same(by_row["x"], array)
    same(by_name["x"], array)


def test_rows_of_several_inputs_name_them_in_any_order() -> None:
    inputs = decode(b'{"instances": [{"a": [1, 2], "b": 3}, {"b": 6, "a": [4, 5]}]}', TWO_INPUTS)
    same(inputs["a"], np.array([[1, 2], [4, 5]], "<f4"))
    same(inputs["b"], np.array([3, 6], "<i8"))


def test_a_body_may_be_a_view_of_a_larger_buffer() -> None:
    view = memoryview(b'xx{"inputs": {"x": [[1, 2]]}}yy')[2:-2]
    assert json_lists.decode(Content(view), one_input())["x"].tolist() == [[1, 2]]


def test_other_members_such_as_an_id_are_ignored() -> None:
    assert decode(b'{"id": "7", "inputs": {"x": [[1, 2]]}, "parameters": {}}', one_input())[
        "x"
    ].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[1, 2]", 'body: expected an object with "inputs" or "instances"; got list'),
        (b"null", "got NoneType"),
        (b"{}", 'expected either "inputs" or "instances"; got an empty object'),
        (b'{"input": 1, "id": 2}', "got 'input', 'id'"),
        (b'{"inputs": {}, "instances": []}', "got 'inputs', 'instances'"),
        (b'{"inputs": [[1, 2]]}', '"inputs": expected an object of name to values; got list'),
        (b'{"inputs": {}}', "expected inputs 'a', 'b'; got none"),
        (b'{"inputs": {"a": [[1, 2]], "c": [1]}}', "expected inputs 'a', 'b'; got 'a', 'c'"),
        (
            b'{"inputs": {"a": [[1, 2]], "b": [1], "c": [1]}}',
            "expected inputs 'a', 'b'; got 'a', 'b', 'c'",
        ),
        (
            b'{"inputs": {"a": [[1, 2]], "b": [1, 2]}}',
            "input 'b': expected 1 rows, as in 'a'; got 2",
        ),
        (b'{"inputs": {"a": [], "b": []}}', r"input 'a': expected FP32\[-1,2\]; got FP32\[0\]"),
        (
            b'{"inputs": {"a": 5, "b": [1]}}',
            r"input 'a': expected FP32\[-1,2\] as nested lists; got 5",
        ),
        (b'{"inputs": {"a": null, "b": [1]}}', "as nested lists; got null"),
        (b'{"inputs": {"a": {"b": 1}, "b": [1]}}', "as nested lists; got an object"),
        (b'{"inputs": {"a": [[1, 2, 3]], "b": [1]}}', r"expected FP32\[-1,2\]; got FP32\[1,3\]"),
        (b'{"instances": {"a": [1, 2], "b": 1}}', '"instances": expected a list of rows; got dict'),
        (b'{"instances": []}', ""),
        (
            b'{"instances": [[1, 2]]}',
            r'"instances"\[0\]: expected an object of \'a\', \'b\'; got list',
        ),
        (
            b'{"instances": [{"a": [1, 2], "b": 1}, {"a": [1, 2]}]}',
            r"\[1\]: expected an object of 'a', 'b'; got 'a'",
        ),
        (b'{"instances": [{"a": [1, 2], "b": 1}, 5]}', r"\[1\]: .*; got int"),
    ],
)
def test_another_layout_is_refused_with_what_was_expected_and_what_came(
    body: bytes, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint or "expected"):
        decode(body, TWO_INPUTS)


@pytest.mark.parametrize("more", ["null", "1", "[1]", '{"a": 1}', f"[{'1.5,' * LARGE_BYTES}2]"])
def test_a_name_that_the_model_lacks_is_refused_whatever_its_value(more: str) -> None:
    body = b'{"inputs": {"x": [[1, 2]], "z": %b}}' % more.encode()
    with pytest.raises(InvalidInput, match="expected inputs 'x'; got 'x', 'z'"):
        json_lists.decode(Content(body), one_input())


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"inputs": {"x": [[NaN, 1]]}}', "JSON has no NaN"),
        (b'{"inputs": {"x": [[-Infinity, 1]]}}', "JSON has no Infinity"),
        (b'{"inputs": {"x": [[1e400, 1]]}}', "expected JSON"),
        (b"{'inputs': 1}", "expected JSON; got something else"),
        (b'{"inputs": {"x": [[1, 2]]}} {}', "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b'{"inputs": {"x": [["\xff"]]}}', "expected JSON"),
        (b'{"inputs": {"x": [["\\ud800"]]}}', "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"", "expected JSON"),
    ],
)
def test_a_body_that_is_no_json_is_refused_with_the_reason(body: bytes, complaint: str) -> None:
    with pytest.raises(DecodingError, match=complaint):
        decode(body, one_input())


@pytest.mark.parametrize(
    "charset",
    ["utf-8", "UTF8", "utf-16", "UTF-16BE", "utf-32", "iso-8859-1", "windows-1252", "us-ascii"],
)
def test_a_body_is_read_in_its_charset(charset: str) -> None:
    word = "a" if charset == "us-ascii" else "äé"
    inputs = decode(
        json.dumps({"inputs": {"x": [[word]]}}, ensure_ascii=False).encode(charset),
        one_input("BYTES", (1,)),
        charset,
    )
    assert inputs["x"][0, 0] == word.encode()


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("no-such-charset", b"{}"),
        ("", b"{}"),
        ("hex", b"7b7d"),
        ("zlib", b"{}"),
        ("utf-16", b"{}}"),
        ("ascii", b"\xff"),
        ("undefined", b"{}"),
        ("punycode", b'{"inputs-"'),
        ("idna", b"\xff"),
        ("utf-7", b'{"inputs": {"x": [["+2AA-"]]}}'),
        ("raw_unicode_escape", b'{"inputs": {"x": [["\\ud800"]]}}'),
        ("a\0b", b"{}"),
        ("x" * 1000, b"{}"),
        ("ütf-8", b"{}"),
    ],
)
def test_a_charset_that_cannot_be_read_is_refused_by_its_name(charset: str, body: bytes) -> None:
    with pytest.raises(DecodingError, match="body: expected text in charset"):
        decode(body, one_input("BYTES", (1,)), charset)


def test_a_charset_in_the_extended_notation_of_rfc_2231_is_read_or_refused() -> None:
    _, parameters = media_type("application/json; charset*=us-ascii'en'utf-8")
    inputs = decoded_or_refused(
        json_lists.decode, b'{"inputs": {"x": [[1, 2]]}}', one_input(), parameters=parameters
    )
    assert inputs is None or inputs["x"].tolist() == [[1, 2]]


@given(st.binary(max_size=60), st.sampled_from(["FP32", "INT8", "BOOL", "BYTES"]))
def test_any_bytes_are_refused(body: bytes, dtype: str) -> None:
    decoded_or_refused(json_lists.decode, body, one_input(dtype))


@given(
    damaged(BODIES), st.sampled_from(["FP32", "FP16", "BF16", "INT8", "UINT64", "BOOL", "BYTES"])
)
def test_a_damaged_body_is_rows_or_refused(body: bytes, dtype: str) -> None:
    decoded_or_refused(json_lists.decode, body, one_input(dtype))


@given(
    st.sampled_from(
        [
            "utf-8",
            "utf-16",
            "utf-7",
            "utf-32",
            "idna",
            "punycode",
            "unicode_escape",
            "cp037",
            "shift_jis",
            "undefined",
        ]
    ),
    st.binary(max_size=60),
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_any_bytes_in_any_charset_are_refused(charset: str, body: bytes) -> None:
    decoded_or_refused(json_lists.decode, body, one_input(), parameters={"charset": charset})


@given(batches(["FP16", "FP32", "FP64"]))
def test_every_number_that_json_does_not_have_is_answered_as_null(
    batch: tuple[ModelSpec, Array],
) -> None:
    spec, array = batch
    found = np.array(answered(spec, x=array)["outputs"]["x"], dtype=object)
    assert [value is None for value in found.flat] == (~np.isfinite(array)).ravel().tolist()


def test_nan_and_infinity_become_null_beside_numbers_that_stay() -> None:
    assert answered(one_input("FP64", (4,)), x=np.array([[math.nan, math.inf, -math.inf, 0.5]]))[
        "outputs"
    ]["x"] == [[None, None, None, 0.5]]


def test_bf16_is_answered_as_the_numbers_it_stands_for() -> None:
    assert answered(one_input("BF16"), x=np.array([[0x3F80, 0xC040]], "<u2"))["outputs"]["x"] == [
        [1.0, -3.0]
    ]


def test_bytes_that_are_no_text_are_answered_with_replacement_characters() -> None:
    assert answered(one_input("BYTES", (1,)), x=np.array([[b"a\xff"]], dtype=object))["outputs"][
        "x"
    ] == [["a\ufffd"]]


def test_outputs_that_are_views_are_written_in_row_major_order() -> None:
    view = np.arange(8, dtype="<f4").reshape(2, 4)[:, ::2]
    assert answered(one_input(), x=view)["outputs"]["x"] == view.tolist()

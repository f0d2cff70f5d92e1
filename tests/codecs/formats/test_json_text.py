"""Large JSON documents, which are read piece by piece: the same as whole, with less memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs import tf_serving
from batcher.codecs.content import Content
from batcher.codecs.formats import json_lists, json_text
from batcher.codecs.oip.request import read_head
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ClientError, DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import MIB, damaged, echo_spec, one_input, same
from tests.support.long_lists import memory_ratio, pieces_of
from tests.support.models import tensor

NUMBERS = st.integers(-(2**40), 2**40) | st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=6) | st.sampled_from(['[1,2],"', "\\", '\\"', '{"a":[', "],", "\\\\"])
JUNK = st.sampled_from([None, {}, {"a": [1, {"b": []}]}, ["x", [[True]]], "[[,"])
SIZES = st.sampled_from([4, 7, 16, 40, 1000])
BODIES = [
    b'{"inputs": {"x": [[1, -2.5], [3e2, 4]]}, "junk": ["a[,", {"b": [1, [2]]}]}',
    b'{"instances": [[1,2],[3,4]]}',
    b'{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}',
    b'{"a": {"b": "\\"[\\\\"}, "inputs": {"x": [["a\\\\", "],["], ["", "\\u00e4"]]}}',
]


def decode(body: bytes, spec: ModelSpec, limits: DecodingLimits | None = None) -> dict[str, Array]:
    content = Content(body) if limits is None else Content(body, limits=limits)
    return json_lists.decode(content, spec)


def outcome(body: bytes, spec: ModelSpec) -> dict[str, Array] | None:
    try:
        return decode(body, spec)
    except ClientError:
        return None


def alike(body: bytes, spec: ModelSpec, size: int) -> dict[str, Array] | None:
    """Return the inputs in `body`, which is read alike whole and in pieces of `size` bytes."""
    whole = outcome(body, spec)
    with pieces_of(size):
        found = outcome(body, spec)
    assert (whole is None) == (found is None)
    if whole is not None and found is not None:
        assert whole.keys() == found.keys()
        for name, array in whole.items():
            same(found[name], array)
    return found


@st.composite
def nested(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))

    def lists(sizes: list[int]) -> Any:
        return [lists(sizes[1:]) for _ in range(sizes[0])] if sizes else draw(values)

    return lists([draw(st.integers(0, 6)), *shape])


@given(
    st.one_of(
        st.tuples(st.sampled_from(["FP32", "FP64", "INT64"]), nested(NUMBERS)),
        st.tuples(st.just("BYTES"), nested(TEXTS)),
        st.tuples(st.just("BOOL"), nested(st.booleans())),
        st.tuples(st.just("FP32"), nested(NUMBERS | JUNK)),
    ),
    JUNK,
    SIZES,
    st.sampled_from([(",", ":"), (" , ", ": ")]),
    st.booleans(),
)
def test_a_document_is_the_same_in_pieces_and_whole(
    drawn: tuple[str, Any], junk: Any, size: int, separators: tuple[str, str], plain: bool
) -> None:
    dtype, rows = drawn
    for document in (
        {"inputs": {"x": rows}, "junk": junk},
        {"junk": [junk, junk], "instances": rows},
        {"instances": [{"x": row} for row in rows]},
    ):
        text = json.dumps(document, separators=separators, ensure_ascii=plain)
        alike(text.encode(), one_input(dtype), size)


@given(damaged(BODIES), st.sampled_from(["FP32", "BYTES"]), SIZES)
def test_what_is_no_json_is_refused_in_pieces_as_it_is_whole(
    body: bytes, dtype: str, size: int
) -> None:
    alike(body, one_input(dtype), size)


@pytest.mark.parametrize(
    "inside",
    ["1,,2", "1,2,", ",1", "1 2", "1],[2", "[1]2", "[1,2]3", "1}", "1,{2]", "01", "1,nan", "+1"],
)
@pytest.mark.parametrize("size", [4, 8, 1000])
def test_lists_that_are_no_json_are_refused_wherever_they_are_cut(inside: str, size: int) -> None:
    body = f'{{"inputs": {{"x": [[0, 1], [2, 3]]}}, "other": [{inside}]}}'.encode()
    with pieces_of(size), pytest.raises(DecodingError, match="expected JSON"):
        decode(body, one_input())


@pytest.mark.parametrize(
    "body",
    [
        b"{'inputs': [1]}",
        b"{\"inputs\": {'x': [1]}}",
        b"[{'x': 1}]",
        b'{"id": \'a\', "inputs": [1]}',
    ],
)
def test_of_single_quotes_the_error_says_that_json_wants_double_ones(body: bytes) -> None:
    with pytest.raises(DecodingError, match="in double quotes, not in single ones"):
        decode(body, one_input())
    with pytest.raises(DecodingError) as raised:
        decode(b'{"inputs": "it\'s, \'so\'",}', one_input())
    assert "single" not in str(raised.value)


def test_every_list_becomes_pieces_when_pieces_are_small() -> None:
    with pieces_of(4):
        kinds = json_text.with_json(b'{"a": [[1, 2], [3]], "b": [[[4]]]}', lambda found: found)
    assert {key: type(value) for key, value in kinds.items()} == {
        "a": json_text.LongJsonList,
        "b": json_text.LongJsonList,
    }


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([[1, 2]] * 9 + [[1, "2"]], r"input 'x'\[9\]\[1\]: expected a number for FP32; got '2'"),
        ([[1, 2]] * 9 + [[1, None]], r"input 'x'\[9\]\[1\]: expected a number for FP32; got null"),
        ([[1, 2]] * 9 + [[1e39, 2]], r"input 'x'\[9\]\[0\]: expected a number within"),
        ([[1, 2]] * 9 + [[1]], "equal lengths; got uneven ones"),
        ([[*[1] * 50, True]], r"input 'x'\[0\]\[50\]: expected a number for FP32; got true"),
    ],
)
@pytest.mark.parametrize("layout", ["inputs", "instances", "objects"])
def test_a_wrong_value_is_refused_with_its_place_in_the_whole_list(
    rows: list[Any], complaint: str, layout: str
) -> None:
    document = {
        "inputs": {"inputs": {"x": rows}},
        "instances": {"instances": rows},
        "objects": {"instances": [{"x": row} for row in rows]},
    }[layout]
    with pieces_of(12), pytest.raises(InvalidInput, match=complaint):
        decode(json.dumps(document).encode(), one_input())


@pytest.mark.parametrize("layout", ["inputs", "instances", "objects"])
def test_more_rows_than_the_queue_can_hold_are_refused_by_the_name_of_the_limit(
    layout: str,
) -> None:
    rows = [[1, 2]] * 5
    document = {
        "inputs": {"inputs": {"x": rows}},
        "instances": {"instances": rows},
        "objects": {"instances": [{"x": row} for row in rows]},
    }[layout]
    body = json.dumps(document).encode()
    with pieces_of(16):
        same(decode(body, one_input(), DecodingLimits(5, 40))["x"], np.array(rows, "<f4"))
        with pytest.raises(TooLarge, match=r"at most .*max_queue_rows"):
            decode(body, one_input(), DecodingLimits(4, 40))
        with pytest.raises(TooLarge, match=r"39 bytes \(max_queue_bytes\)"):
            decode(body, one_input(shape=(-1,)), DecodingLimits(5, 39))


def test_commas_within_texts_are_not_counted() -> None:
    body = json.dumps({"inputs": {"x": [[",,,,,,,,", ",,,"]]}}).encode()
    with pieces_of(16):
        found = decode(body, one_input("BYTES"), DecodingLimits(1, 1000))
    assert found["x"].tolist() == [[b",,,,,,,,", b",,,"]]


@pytest.mark.parametrize("size", [8, 100])
@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_the_open_inference_protocol_reads_flat_and_nested_data_in_pieces(
    data: list[Any], size: int
) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": data, "extra": [[{}]]}
    body = json.dumps({"inputs": [entry], "id": "7"}).encode()
    with pieces_of(size, long_bytes=9):
        head = read_head(body, one_input(), DecodingLimits(2, 16))
        with pytest.raises(TooLarge):
            read_head(body, one_input(), DecodingLimits(1, 16))
        with pytest.raises(DecodingError):
            read_head(body.replace(b"{}", b"{]"), one_input())
        with pytest.raises(InvalidInput, match="expected 2 values"):
            read_head(body.replace(b"[2, 2]", b"[1, 2]"), one_input())
    same(head.inputs(b"")["x"], np.array([[1, 2], [3, 4]], "<f4"))
    assert head.id == "7"


@pytest.mark.parametrize("size", [8, 100])
def test_base64_is_read_in_pieces(size: int) -> None:
    body = b'{"instances": [{"b64": "YWI="}, "c", {"b64": ""}, "d"]}'
    with pieces_of(size):
        inputs, by_row = tf_serving.decode(body, one_input("BYTES", ()))
    assert by_row
    assert inputs["x"].tolist() == [b"ab", b"c", b"", b"d"]


def test_rows_of_several_inputs_are_read_in_pieces() -> None:
    spec = echo_spec(tensor("x", "FP32", (-1,)), tensor("y", "BYTES", ()))
    rows = [{"x": [index, 0.5], "y": f"[{index}"} for index in range(20)]
    found = alike(json.dumps({"instances": rows}).encode(), spec, 10)
    assert found is not None
    assert found["y"].tolist() == [f"[{index}".encode() for index in range(20)]


def test_lists_without_end_are_refused_at_once() -> None:
    levels = b"[" * MIB
    for body in (b'{"inputs": {"x": ' + levels, b'{"inputs": {"x": ' + levels + b"]" * MIB + b"}}"):
        with pytest.raises(ClientError, match="expected"):
            decode(body, one_input())


def test_many_lists_in_objects_are_refused() -> None:
    members = ",".join(f'"{index}":[]' for index in range(json_text.MAX_LISTS + 1))
    with pytest.raises(DecodingError, match="expected at most 16384 lists in objects; got more"):
        decode(b'{"inputs": {"x": [[1, 2]]},' + members.encode() + b" " * MIB + b"}", one_input())


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "value"), [("FP64", b"0"), ("INT64", b"1234567")])
def test_a_large_body_takes_at_most_six_times_its_bytes(
    dtype: str, value: bytes, tmp_path: Path
) -> None:
    values = b",".join([value] * (32 * MIB // (len(value) + 1)))
    body = b'{"inputs": {"x": [[' + values + b"]]}}"
    assert memory_ratio("application/json", dtype, body, tmp_path) < 6

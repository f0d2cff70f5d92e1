"""Values that an input of each datatype takes from JSON and MessagePack lists, and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import bfloat16, json_lists
from batcher.core.spec import Array, check_inputs, datatype
from batcher.errors import InvalidInput
from tests.support.codec_inputs import (
    FLOATS,
    INTEGERS,
    MIB,
    decoded_or_refused,
    one_input,
    python_memory_below,
    same,
)

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
)


def decode(rows: Any, dtype: str, shape: tuple[int, ...] = (2,)) -> Array:
    spec = one_input(dtype, shape)
    inputs = json_lists.decode(Content(json.dumps({"inputs": {"x": rows}}).encode()), spec)
    check_inputs(spec, inputs)
    return inputs["x"]


def limits(dtype: str) -> tuple[int, int]:
    info = np.iinfo(datatype(dtype).numpy)
    return int(info.min), int(info.max)


@pytest.mark.parametrize("dtype", [*FLOATS, "BF16"])
def test_whole_numbers_are_right_for_a_float_input(dtype: str) -> None:
    found = decode([[1, -2], [0, 2.0]], dtype)
    values = bfloat16.to_float32(found) if dtype == "BF16" else found
    assert values.tolist() == [[1, -2], [0, 2]]


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_every_integer_in_range_arrives_exactly(dtype: str, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(
            st.lists(st.integers(*limits(dtype)), min_size=2, max_size=2), min_size=1, max_size=3
        )
    )
    same(decode(rows, dtype), np.array(rows, datatype(dtype).numpy))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_an_integer_type_arrive_exactly_beside_small_numbers(dtype: str) -> None:
    lowest, highest = limits(dtype)
    same(
        decode([[lowest, highest], [1, highest]], dtype),
        np.array([[lowest, highest], [1, highest]], datatype(dtype).numpy),
    )


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("step", [-1, 1])
def test_an_integer_out_of_range_is_refused_with_the_range(dtype: str, step: int) -> None:
    lowest, highest = limits(dtype)
    wrong = lowest - 1 if step < 0 else highest + 1
    with pytest.raises(InvalidInput, match=rf"input 'x'\[0\]\[1\]: expected .* for {dtype}; got "):
        decode([[1, wrong]], dtype)


@pytest.mark.parametrize("dtype", ["INT64", "UINT64"])
@pytest.mark.parametrize("exact", [2**53 + 1, 2**53 + 3, 2**60 + 1, -(2**53) - 1])
def test_a_large_integer_beside_a_fractionless_float_is_exact_or_refused(
    dtype: str, exact: int
) -> None:
    try:
        found = decode([[exact, 1.0]], dtype)
    except InvalidInput:
        return
    assert int(found[0, 0]) == exact


def test_a_float_without_a_fraction_is_right_for_an_integer_input() -> None:
    same(decode([[2.0, -3e2]], "INT32"), np.array([[2, -300]], "<i4"))


@pytest.mark.parametrize(
    ("dtype", "row", "complaint"),
    [
        ("FP32", [1, True], r"\[0\]\[1\]: expected a number for FP32; got true"),
        ("FP32", [False, False], r"\[0\]\[0\]: expected a number for FP32; got false"),
        ("FP64", [1.5, None], r"\[0\]\[1\]: expected a number for FP64; got null.*`missing: nan`"),
        ("FP16", ["1", 2], r"\[0\]\[0\]: expected a number for FP16; got '1'"),
        ("BF16", [1, {"a": 2}], r"\[0\]\[1\]: expected a number for BF16; got an object"),
        ("FP32", [1, "a" * 99], r"\[0\]\[1\]: expected a number for FP32; got 'aaa.*…"),
        ("INT8", [1, True], r"\[0\]\[1\]: expected a number for INT8; got true"),
        ("INT32", [1, 2.5], r"\[0\]\[1\]: expected a whole number for INT32; got 2.5"),
        ("INT64", [1, "2"], r"\[0\]\[1\]: expected a number for INT64; got '2'"),
        ("UINT8", [1, None], r"\[0\]\[1\]: .* for UINT8; got null.*: declare FP32, with"),
        ("INT8", [1, 128], r"\[0\]\[1\]: expected -128 to 127 for INT8; got 128"),
        ("UINT8", [-1, 0], r"\[0\]\[0\]: expected 0 to 255 for UINT8; got -1"),
        (
            "FP16",
            [1, 65520],
            r"\[0\]\[1\]: expected a number within ±6.55e\+04 for FP16; got 65520",
        ),
        (
            "FP32",
            [1e39, 1],
            r"\[0\]\[0\]: expected a number within ±3.4e\+38 for FP32; got 1e\+39",
        ),
        (
            "BF16",
            [3.4e38, 1],
            r"\[0\]\[0\]: expected a number within ±3.39e\+38 for BF16; got 3.4e\+38",
        ),
        ("BOOL", [True, 1], r"\[0\]\[1\]: expected true or false for BOOL; got 1"),
        ("BOOL", ["true", True], r"\[0\]\[0\]: expected true or false for BOOL; got 'true'"),
        ("BOOL", [True, None], r"\[0\]\[1\]: expected true or false for BOOL; got null"),
        ("BYTES", ["a", 1], r"\[0\]\[1\]: expected a string, or .* for BYTES; got 1"),
        (
            "BYTES",
            [None, "a"],
            r"\[0\]\[0\]: expected a string, .*; got null. Where a text is missing, send an ",
        ),
    ],
)
def test_a_value_that_the_datatype_does_not_take_is_refused_with_its_place(
    dtype: str, row: list[Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=f"input 'x'{complaint}"):
        decode([row], dtype)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("FP16", 65504.0), ("FP32", float(np.finfo("<f4").max)), ("FP64", 1.7976931348623157e308)],
)
def test_the_largest_number_of_a_float_type_arrives_exactly(dtype: str, largest: float) -> None:
    assert decode([[largest, -largest]], dtype).tolist() == [[largest, -largest]]


@pytest.mark.parametrize("dtype", ["FP32", "INT8", "BOOL", "BYTES"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param([2, 1], id="a short row"),
        pytest.param([1, 2, 0], id="a row without values"),
        pytest.param([2, None], id="a bare value beside rows"),
    ],
)
def test_lists_of_unequal_lengths_are_refused(dtype: str, shape: list[int | None]) -> None:
    value = {"BOOL": True, "BYTES": "a"}.get(dtype, 1)
    rows = [value if length is None else [value] * length for length in shape]
    with pytest.raises(InvalidInput, match=r"input 'x'.*expected"):
        decode(rows, dtype, (1,))


def test_unequal_lists_are_called_so() -> None:
    with pytest.raises(
        InvalidInput,
        match=r"input 'x': expected FP32\[-1,2\] as nested lists of equal lengths; got uneven ones",
    ):
        decode([[1, 2], [3]], "FP32")


@pytest.mark.parametrize("dtype", ["FP32", "INT8", "BOOL", "BYTES"])
@pytest.mark.parametrize("levels", [3, 64, 65, 500, 1000])
def test_lists_nested_too_deeply_are_refused(dtype: str, levels: int) -> None:
    value = {"BOOL": b"true", "BYTES": b'"a"'}.get(dtype, b"1")
    body = b'{"inputs": {"x": ' + b"[" * levels + value + b"]" * levels + b"}}"
    assert decoded_or_refused(json_lists.decode, body, one_input(dtype, (1,))) is None


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "BF16", "BOOL", "BYTES"])
@given(value=DOCUMENTS)
def test_any_json_value_is_rows_or_refused(dtype: str, value: Any) -> None:
    body = json.dumps({"inputs": {"x": value}}).encode()
    decoded_or_refused(json_lists.decode, body, one_input(dtype, (1,)))
    decoded_or_refused(
        json_lists.decode, body.replace(b"inputs", b"instances"), one_input(dtype, ())
    )


@pytest.mark.parametrize("other", ["", 1, None])
def test_one_long_string_among_many_values_does_not_multiply(other: Any) -> None:
    body = json.dumps({"inputs": {"x": ["a" * 20_000, *[other] * 5_000]}}).encode()
    with python_memory_below(20 * MIB):
        assert decoded_or_refused(json_lists.decode, body, one_input()) is None


def test_a_refusal_of_a_long_string_is_short() -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode([["a" * 100_000, 1]], "FP32")
    assert len(str(refusal.value)) < 300

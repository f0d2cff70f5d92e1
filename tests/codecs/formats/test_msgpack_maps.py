"""`application/msgpack`, with the msgpack-numpy package as the client, unchanged."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import msgpack_maps
from batcher.core.spec import Array, ModelSpec, check_inputs
from batcher.errors import DecodingError, InvalidInput
from tests.support.codec_inputs import (
    MIB,
    arrays,
    batches,
    damaged,
    decoded_or_refused,
    echo_spec,
    one_input,
    python_memory_below,
    response,
    same,
)
from tests.support.models import tensor


def packed(document: Any) -> bytes:
    """Pack as a client of msgpack-numpy does."""
    body: bytes = msgpack_numpy.packb(document)
    return body


def decode(document: Any, spec: ModelSpec) -> dict[str, Array]:
    inputs = msgpack_maps.decode(Content(packed(document)), spec)
    check_inputs(spec, inputs)
    return inputs


def array_map(**changes: Any) -> dict[str, Any]:
    """Return the map of a float32 array of shape (1, 2), with some entries changed."""
    return {"nd": True, "type": "<f4", "kind": "", "shape": [1, 2], "data": bytes(8), **changes}


BODIES = [
    packed({"inputs": {"x": np.ones((2, 2), "<f4")}}),
    packed({"instances": [np.ones(2, "<f4"), [1.5, 2]]}),
    packed({"inputs": {"x": [[1, 2.5], [3, 4]]}}),
]


@given(batches(), st.booleans(), st.booleans())
def test_what_msgpack_numpy_packs_arrives_bit_for_bit(
    batch: tuple[ModelSpec, Array], fortran: bool, big_endian: bool
) -> None:
    spec, array = batch
    sent = np.asarray(array, order="F" if fortran else "C")
    sent = sent.astype(sent.dtype.newbyteorder(">")) if big_endian else sent
    same(decode({"inputs": {"x": sent}}, spec)["x"], array)


@given(batches())
def test_what_is_answered_msgpack_numpy_unpacks_bit_for_bit(batch: tuple[ModelSpec, Array]) -> None:
    spec, array = batch
    answer = msgpack_numpy.unpackb(bytes(msgpack_maps.encode(response(x=array), spec)))
    same(answer["outputs"]["x"], array)


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple))
def test_strings_travel_as_nested_lists_both_ways(
    data: st.DataObject, shape: tuple[int, ...]
) -> None:
    array = data.draw(arrays("BYTES", shape))
    spec = one_input("BYTES", shape[1:])
    answer = msgpack.unpackb(bytes(msgpack_maps.encode(response(x=array), spec)))
    same(decode({"inputs": {"x": answer["outputs"]["x"]}}, spec)["x"], array)


def test_every_input_and_output_of_a_model_has_its_own_array() -> None:
    spec = echo_spec(tensor("a", "INT64", ()), tensor("b", "BOOL", (2,)))
    outputs = {"a": np.array([1, 2], "<i8"), "b": np.array([[True, False], [False, True]])}
    answer = msgpack_numpy.unpackb(bytes(msgpack_maps.encode(response(**outputs), spec)))["outputs"]
    inputs = decode({"inputs": answer}, spec)
    for name, array in outputs.items():
        same(inputs[name], array)


@pytest.mark.parametrize("keys", [str, str.encode])
def test_the_keys_of_an_array_may_be_text_or_bytes(keys: Any) -> None:
    document = {"inputs": {"x": {keys(name): value for name, value in array_map().items()}}}
    same(decode(document, one_input())["x"], np.zeros((1, 2), "<f4"))


def test_nested_lists_are_read_like_those_of_json() -> None:
    same(decode({"inputs": {"x": [[1, 2.5]]}}, one_input())["x"], np.array([[1, 2.5]], "<f4"))


def test_rows_may_be_lists() -> None:
    same(
        decode({"instances": [[1, 2], [3, 4]]}, one_input("INT8"))["x"],
        np.array([[1, 2], [3, 4]], "<i1"),
    )


def test_rows_may_be_arrays() -> None:
    found = decode({"instances": [np.array([0.5, 1], "<f4"), np.array([2, 3], "<f4")]}, one_input())
    same(found["x"], np.array([[0.5, 1], [2, 3]], "<f4"))


def test_rows_may_be_numpy_scalars() -> None:
    found = decode(
        {"instances": [{"x": np.float32(0.5)}, {"x": np.float32(2)}]}, one_input("FP32", ())
    )
    same(found["x"], np.array([0.5, 2], "<f4"))


def test_rows_that_are_arrays_of_bf16_keep_their_bits() -> None:
    found = decode({"instances": [np.array([0x3F80, 0x4000], "<u2")]}, one_input("BF16"))
    same(found["x"], np.array([[0x3F80, 0x4000]], "<u2"))


@pytest.mark.parametrize(
    ("dtype", "row"),
    [
        ("FP32", np.array([0.5, 1], "<f8")),
        ("FP32", np.array([1, 2], "<i4")),
        ("INT32", np.array([0.5, 1], "<f4")),
        ("INT32", np.array([1.0, 2], "<f4")),
        ("FP16", np.array([1e30, 1], "<f4")),
        ("INT8", np.array([1, 300], "<i4")),
        ("FP32", np.array([True, False])),
        ("BOOL", np.array([1, 0], "<i4")),
        ("BYTES", np.array([1, 0], "<i4")),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("layout", ["inputs", "instances"])
def test_an_array_of_another_dtype_is_refused_wherever_it_stands(
    dtype: str, row: Array, rows: int, layout: str
) -> None:
    value = {"inputs": {"x": np.stack([row] * rows)}, "instances": [row] * rows}[layout]
    with pytest.raises(InvalidInput, match=r"'x'.*expected .*; got "):
        decode({layout: value}, one_input(dtype))


@pytest.mark.parametrize(
    "rows",
    [
        [np.zeros(2, "<f4"), np.zeros(3, "<f4")],
        [np.zeros(2, "<f4"), 1],
        [[1, 2], np.zeros((1, 2), "<f4")],
    ],
)
def test_rows_of_different_shapes_are_refused(rows: list[Any]) -> None:
    with pytest.raises(InvalidInput, match="'x'"):
        decode({"instances": rows}, one_input())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shape": [1, 3]}, r"expected 12 bytes for FP32\[1,3\]; got 8 bytes"),
        ({"shape": [-1, -2]}, r"expected a shape of whole numbers; got \[-1, -2\]"),
        ({"shape": [1.0, 2]}, r"expected a shape of whole numbers; got \[1.0, 2\]"),
        ({"shape": [True, 2]}, r"expected a shape of whole numbers; got \[True, 2\]"),
        ({"shape": "12"}, "expected a shape such as .*; got '12'"),
        ({"shape": [2**30, 2**30]}, "got 8 bytes"),
        ({"data": "text"}, "expected 8 bytes for .*; got str"),
        ({"data": None}, "got NoneType"),
        ({"type": "<f3"}, "expected a type such as '<f4'; got '<f3'"),
        ({"type": "<c8"}, "expected a type"),
        ({"type": None}, "expected a type such as '<f4'; got None"),
        ({"type": [["a", "<f4"]], "kind": b"V"}, "expected a type"),
        ({"type": "<U2"}, "expected a type"),
    ],
)
def test_a_wrong_array_map_is_refused_with_what_came(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises((DecodingError, InvalidInput), match=complaint):
        msgpack_maps.decode(
            Content(msgpack.packb({"inputs": {"x": array_map(**changes)}})), one_input()
        )


class _Writes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_an_array_of_objects_which_msgpack_numpy_pickles_is_refused_and_not_run(
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    body = msgpack.packb(
        {"inputs": {"x": array_map(type="|O", kind=b"O", data=pickle.dumps([_Writes(ran)]))}}
    )
    with pytest.raises(DecodingError, match="expected a type"):
        msgpack_maps.decode(Content(body), one_input())
    assert not ran.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x81\xa6inputs",
        b'{"inputs": {"x": [[1, 2]]}}',
        packed({"inputs": {}}) + b"\x00",
        msgpack.packb({"inputs": {1: 2}}),
        msgpack.packb({"inputs": {"x": msgpack.ExtType(5, b"abc")}}),
        msgpack.packb({"inputs": {"x": msgpack.Timestamp(1)}}),
        msgpack.packb({"inputs": {"x": [[msgpack.Timestamp(1), 2]]}}),
        msgpack.packb({"inputs": {"x": [[b"raw", 2]]}}),
        b"\x81\xa6inputs\x81\xa1x\x91\x92\xa2\xff\xfe\x01",
        msgpack.packb([1, 2]),
        msgpack.packb(array_map()),
        msgpack.packb({"instances": array_map()}),
    ],
)
def test_a_body_that_is_something_else_is_refused(body: bytes) -> None:
    assert decoded_or_refused(msgpack_maps.decode, body, one_input()) is None


@given(st.binary(max_size=100), st.sampled_from(["FP32", "INT32", "BOOL", "BYTES"]))
def test_any_bytes_are_refused(body: bytes, dtype: str) -> None:
    decoded_or_refused(msgpack_maps.decode, body, one_input(dtype))


@given(damaged(BODIES), st.sampled_from(["FP32", "INT32", "FP16", "BF16", "BYTES"]))
def test_a_damaged_body_is_rows_or_refused(body: bytes, dtype: str) -> None:
    decoded_or_refused(msgpack_maps.decode, body, one_input(dtype))


@pytest.mark.parametrize("levels", [65, 400, 900, 100_000])
@pytest.mark.parametrize("dtype", ["FP32", "INT8", "BOOL", "BYTES"])
def test_lists_nested_too_deeply_are_refused(levels: int, dtype: str) -> None:
    body = (
        b"\x81\xa6inputs\x81\xa1x" + b"\x91" * levels + (b"\xa1a" if dtype == "BYTES" else b"\x01")
    )
    assert decoded_or_refused(msgpack_maps.decode, body, one_input(dtype)) is None


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
    ],
)
def test_a_promise_of_gigabytes_costs_nothing(head: bytes) -> None:
    with python_memory_below(MIB):
        assert (
            decoded_or_refused(
                msgpack_maps.decode, b"\x81\xa6inputs\x81\xa1x" + head + bytes(100), one_input()
            )
            is None
        )


def test_one_long_string_among_many_short_ones_does_not_multiply() -> None:
    body = msgpack.packb({"inputs": {"x": [b"a" * 20_000, *[b""] * 5_000]}})
    with (
        python_memory_below(20 * MIB),
        pytest.raises(InvalidInput, match="expected a number for FP32"),
    ):
        msgpack_maps.decode(Content(body), one_input())


def test_a_boolean_byte_other_than_0_and_1_never_reaches_the_model() -> None:
    body = msgpack.packb({"inputs": {"x": array_map(type="|b1", data=b"\x02\x01")}})
    inputs = decoded_or_refused(msgpack_maps.decode, body, one_input("BOOL"))
    assert inputs is None or inputs["x"].view("u1").max() <= 1

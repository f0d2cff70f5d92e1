"""Values that are missing: NaN for an input that says `missing: nan`, else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from batcher.codecs import tf_serving
from batcher.codecs.content import Content
from batcher.codecs.formats import csv_rows, json_lines, json_lists, msgpack_maps
from batcher.codecs.formats.bfloat16 import plain_numbers
from batcher.codecs.formats.long_lists import PIECE_BYTES
from batcher.codecs.oip.request import read_head
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ClientError
from tests.support.codec_inputs import echo_spec, one_input
from tests.support.models import tensor

Decode = Callable[[bytes, ModelSpec], dict[str, Array]]


def content(decode: Any, media_type: str) -> Decode:
    return lambda body, spec: decode(Content(body, media_type), spec)


OIP = b'{"inputs": [{"name": "x", "datatype": "%b", "shape": [2, 2], "data": [1, null, null, 4]}]}'
BODIES = {
    "json": (
        content(json_lists.decode, "application/json"),
        b'{"inputs": {"x": [[1, null], [null, 4]]}}',
    ),
    "json by row": (
        content(json_lists.decode, "application/json"),
        b'{"instances": [[1, null], [null, 4]]}',
    ),
    "json lines": (content(json_lines.decode, "application/jsonlines"), b"[1, null]\n[null, 4]"),
    "tf serving": (
        lambda body, spec: tf_serving.decode(body, spec)[0],
        b'{"instances": [{"x": [1, null]}, {"x": [null, 4]}]}',
    ),
    "msgpack": (
        content(msgpack_maps.decode, "application/msgpack"),
        msgpack.packb({"inputs": {"x": [[1, None], [None, 4]]}}),
    ),
    "csv": (content(csv_rows.decode, "text/csv"), b"1,\n ,4\n"),
    "quoted csv": (content(csv_rows.decode, "text/csv"), b'"1",""\r\n"",4\r\n'),
    "csv with a header": (content(csv_rows.decode, "text/csv"), b"a,b\n1,\n,4\n"),
    "oip": (lambda body, spec: read_head(body, spec).inputs(b""), OIP),
}


def body_of(name: str, dtype: str) -> tuple[Decode, bytes]:
    decode, body = BODIES[name]
    return decode, body % dtype.encode() if name == "oip" else body


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("dtype", ["FP16", "FP32", "FP64", "BF16"])
def test_a_missing_value_is_nan_where_the_model_says_so(name: str, dtype: str) -> None:
    if dtype == "BF16" and name == "oip":
        pytest.skip("JSON of that protocol has no BF16")
    decode, body = body_of(name, dtype)
    found = decode(body, one_input(dtype, missing_is_nan=True))["x"]
    numbers = plain_numbers(found, dtype)
    np.testing.assert_array_equal(numbers, [[1, np.nan], [np.nan, 4]])


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("dtype", ["FP32", "INT64"])
def test_it_is_refused_where_the_model_does_not(name: str, dtype: str) -> None:
    decode, body = body_of(name, dtype)
    with pytest.raises(ClientError):
        decode(body, one_input(dtype))


def test_each_column_of_a_table_says_for_itself() -> None:
    decode = content(csv_rows.decode, "text/csv")
    spec = echo_spec(tensor("age", "INT32", ()), tensor("height", "FP32", (), missing_is_nan=True))
    found = decode(b"age,height\n30,\n40,1.5\n", spec)
    np.testing.assert_array_equal(found["height"], np.array([np.nan, 1.5], "<f4"))
    with pytest.raises(ClientError, match="line 2, cell 1: expected INT32 for 'age'; got ''"):
        decode(b"age,height\n,1\n", spec)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('{"inputs": {"x": [[null, "a"]]}}', r"input 'x'\[0\]\[1\]: expected a number .*got 'a'"),
        ('{"inputs": {"x": [[null, true]]}}', r"\[0\]\[1\]: expected a number .*; got true"),
        ('{"inputs": {"x": [[null, 1e39]]}}', r"\[0\]\[1\]: expected a number within"),
        ('{"inputs": {"x": [null, [1, 2]]}}', "uneven"),
    ],
)
def test_other_wrong_values_are_still_named_with_their_place(body: str, complaint: str) -> None:
    with pytest.raises(ClientError, match=complaint):
        BODIES["json"][0](body.encode(), one_input(missing_is_nan=True))


@pytest.mark.parametrize("cell", ["nul", "1_0", "--"])
def test_other_wrong_cells_are_still_named_with_their_place(cell: str) -> None:
    with pytest.raises(ClientError, match=f"line 2, cell 2: .*; got '{cell}'"):
        BODIES["csv"][0](f"1,\n,{cell}\n".encode(), one_input(missing_is_nan=True))


@pytest.mark.parametrize("name", ["json", "csv"])
def test_large_bodies_have_holes_too(name: str) -> None:
    rows = PIECE_BYTES // 8
    decode = BODIES[name][0]
    body = (
        b'{"inputs": {"x": [%b]}}' % b",".join([b"[null, 12345.5]"] * rows)
        if name == "json"
        else b",12345.5\n" * rows
    )
    found = decode(body, one_input(missing_is_nan=True))["x"]
    assert found.shape == (rows, 2)
    assert np.isnan(found[:, 0]).all()
    assert (found[:, 1] == 12345.5).all()

"""Large MessagePack documents, which are read piece by piece: the same as whole."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.codecs.content import Content
from batcher.codecs.formats import msgpack_lists, msgpack_maps
from batcher.core.decoding_limits import DecodingLimits
from batcher.core.spec import Array, ModelSpec
from batcher.errors import ClientError, DecodingError, InvalidInput, TooLarge
from tests.support.codec_inputs import MIB, damaged, one_input, same
from tests.support.long_lists import memory_ratio, pieces_of

NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False, width=32)
TEXTS = st.text(max_size=6) | st.binary(max_size=6)
ODD = st.sampled_from([None, {}, {"a": [1]}, True, "q", []])
SIZES = st.sampled_from([1, 7, 16, 40, 1000])
ROW = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": struct.pack("<2f", 1, 2)}
BODIES = [
    msgpack.packb({"inputs": {"x": [[1, -2.5], [300, 4]]}, "junk": ["a", {"b": [1, [2]]}]}),
    msgpack.packb({"instances": [{"x": ROW}, {"x": ROW}]}),
    msgpack.packb({"instances": [[0.5] * 30, [0.25] * 30]}),
]


def decode(body: bytes, spec: ModelSpec, limits: DecodingLimits | None = None) -> Array:
    content = Content(body) if limits is None else Content(body, limits=limits)
    found = msgpack_maps.decode(content, spec)["x"]
    assert isinstance(found, np.ndarray)
    return found


def outcome(body: bytes, spec: ModelSpec) -> Any:
    try:
        return msgpack_maps.decode(Content(body), spec)
    except ClientError:
        return None


def alike(body: bytes, spec: ModelSpec, size: int) -> None:
    whole = outcome(body, spec)
    # a shape of two axes is no long list
    with pieces_of(size, long_bytes=8):
        found = outcome(body, spec)
    assert (whole is None) == (found is None)
    for name, array in (whole or {}).items():
        if isinstance(array, np.ndarray):
            same(found[name], array)


@st.composite
def nested(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    shape = draw(st.lists(st.integers(0, 5), max_size=3))

    def lists(sizes: list[int]) -> Any:
        return [lists(sizes[1:]) for _ in range(sizes[0])] if sizes else draw(values)

    return lists([draw(st.integers(0, 20)), *shape])


@given(
    st.one_of(
        st.tuples(st.sampled_from(["FP32", "FP64", "INT64"]), nested(NUMBERS)),
        st.tuples(st.just("FP64"), nested(st.floats(allow_nan=False))),
        st.tuples(st.just("INT8"), nested(st.integers(-128, 127))),
        st.tuples(st.just("BYTES"), nested(TEXTS)),
        st.tuples(st.just("FP32"), nested(NUMBERS | ODD)),
        st.tuples(st.just("FP32"), st.lists(st.just(ROW), max_size=5)),
    ),
    ODD,
    SIZES,
)
def test_a_document_is_the_same_in_pieces_and_whole(
    drawn: tuple[str, Any], junk: Any, size: int
) -> None:
    dtype, rows = drawn
    for document in (
        {"inputs": {"x": rows}, "junk": [junk, [junk]]},
        {"junk": junk, "instances": rows},
        {"instances": [{"x": row} for row in rows]},
    ):
        alike(msgpack.packb(document), one_input(dtype), size)


@given(damaged(BODIES), SIZES)
def test_what_is_no_msgpack_is_refused_in_pieces_as_it_is_whole(body: bytes, size: int) -> None:
    alike(body, one_input(), size)


@pytest.mark.parametrize("layout", ["inputs", "instances"])
def test_more_rows_than_the_queue_can_hold_are_refused_by_the_name_of_the_limit(
    layout: str,
) -> None:
    rows = [[1.5, 2]] * 5
    body = msgpack.packb({"inputs": {"x": rows}} if layout == "inputs" else {"instances": rows})
    with pieces_of(16):
        same(decode(body, one_input(), DecodingLimits(5, 40)), np.array(rows, "<f4"))
        with pytest.raises(TooLarge, match="max_queue_rows"):
            decode(body, one_input(), DecodingLimits(4, 40))


def test_a_wrong_value_is_refused_with_its_place_in_the_whole_list() -> None:
    body = msgpack.packb({"inputs": {"x": [[1, 2]] * 9 + [[1, "2"]]}})
    with pieces_of(12), pytest.raises(InvalidInput, match=r"'x'\[9\]\[1\]: expected a number"):
        decode(body, one_input())


def test_a_list_that_is_shorter_than_its_header_says_is_refused() -> None:
    body = b"\x81\xa6inputs\x81\xa1x\xdd" + struct.pack(">I", 2**32 - 1) + bytes(MIB)
    with pytest.raises(DecodingError, match="a value that is cut off"):
        decode(body, one_input())


def test_many_members_are_refused() -> None:
    members = {str(index): None for index in range(msgpack_lists.MAX_MEMBERS + 1)}
    body = msgpack.packb({"inputs": {"x": [[1, 2]]}, "junk": members, "more": bytes(MIB)})
    with pytest.raises(DecodingError, match="expected at most 16384 members of maps; got more"):
        decode(body, one_input())


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "value"), [("FP32", b"\x00"), ("FP64", b"\xcb" + bytes(8))])
def test_a_large_body_takes_at_most_six_times_its_bytes(
    dtype: str, value: bytes, tmp_path: Path
) -> None:
    count = 32 * MIB // len(value)
    head = b"\x81\xa6inputs\x81\xa1x\x91\xdd" + struct.pack(">I", count)
    assert memory_ratio("application/msgpack", dtype, head + value * count, tmp_path) < 6
